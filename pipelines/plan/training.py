"""How long a training step takes, and an epoch, by what a step computes. FLOP count a multiply-add as two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from pipelines.plan.constants import FACTOR_PASSES, FACTOR_SPARE, REPORT_EVERY_STEPS, TILE_USERS
from pipelines.plan.distinct_items import distinct_items
from pipelines.plan.machine import Machine
from pipelines.plan.memory import table_row_bytes
from pipelines.plan.network import step_sent, validation_received
from pipelines.plan.ranking import user_seconds
from pipelines.plan.workload import Workload

# Gathering a row, and merging one from a rank, as parts of updating one: index_select, mind_core.distributed and
# mind_core.optim timed alone (5,000 and 20,000 rows, d = 32 and 64, tables of 20,000 to 1 M rows; geometric means).
ROW_WORK = {"adam": (0.03, 0.14), "adagrad": (0.17, 0.87)}


@dataclass(frozen=True)
class Work:
    """What a worker computes in a step.  flop : of matrix products.  cells, rows : times d.

    It is also the row of numbers that pipelines.plan.measure fits the rates to.
    """

    flop: float
    cells: float
    rows: float


def step_work(workload: Workload) -> Work:
    """Count the work of a worker's step, b = B / W samples.

    scores   6 b K N d: forward, and the gradient to either side
    routing  (r - 1) b (4 K L d + 4 K d^2), then the last iteration with its gradients, b (6 K L d + 6 K d^2)
    MLP      6 b K x its weights
    cells    b L: looked up, routed, their gradients summed
    rows     R gathered; replicated: W R merged and the union of all ranks' updated, sharded: R merged and updated;
             in updates, of which gathering and merging take a part (`ROW_WORK`)

    Source: mind_core.loss, mind_core.routing, mind_core.model, mind_core.optim.
    """
    model, batch = workload.config.model, workload.rank_batch
    interests, dim, width = model.interests, model.dim, workload.width
    weights = sum(a * b for a, b in pairwise(workload.mlp_widths))
    flop = 6 * batch * interests * (workload.negatives * dim + weights)
    if model.encoder == "mind":
        each = batch * interests * (width * dim + dim**2)
        flop += (4 * (model.iterations - 1) + 6) * each
    else:
        flop += 6 * batch * width * dim
    return Work(flop, batch * width * dim, rows_touched(workload) * dim)


def rows_touched(workload: Workload) -> float:
    """Count the rows that a worker updates in a step, and, as parts of an update, those that it gathers and merges."""
    gathering, merging = ROW_WORK[workload.config.optim.table_optimizer]
    own = distinct_items(workload, workload.rank_batch)
    if workload.workers == 1:
        return own + gathering * own
    if workload.config.train.shard_items:  # on average as many are asked of a worker as it asks of the others
        return own + merging * own + gathering * 2 * own
    return (
        distinct_items(workload, workload.rank_batch * workload.workers)
        + merging * workload.workers * own
        + gathering * own
    )


def compute_seconds(workload: Workload, machine: Machine, threads: float) -> float:
    """Estimate a step without the network: flop / f + cells / c + rows / r, by threads, and what any step takes."""
    work = step_work(workload)
    busy = work.flop / machine.flop + work.cells / machine.cell + work.rows / machine.row
    return machine.step + busy / machine.threads(threads)


def factor_seconds(workload: Workload, machine: Machine, threads: float) -> float:
    """Estimate the factors that the table may begin with: seven passes, there and back, over a worker's events.

    2 P E / W (1 - label_share) (d + 16) / pair. Events stand for the distinct pairs of a user and an item, which are
    fewer; the orthogonal basis of a pass, 2 V (d + 16)^2 FLOP, is little beside it.  Source: mind_core.factors.
    """
    config = workload.config
    if not config.begins_with_factors(int(workload.items)):
        return 0.0
    past = (1 - config.train.label_share) or 1.0
    pairs, width = workload.train_events * past / workload.workers, config.model.dim + FACTOR_SPARE
    basis = FACTOR_PASSES * 2 * workload.items * width**2 / machine.flop
    return (2 * FACTOR_PASSES * pairs * width / machine.pair + basis) / machine.threads(threads)


def network_seconds(workload: Workload, machine: Machine, workers_a_node: float) -> float:
    """Estimate a step's network: the bytes that a worker sends, as fast as a collective or its part of the network is.

    Workers on one node do not use the network.
    """
    bits = 8 * sum(step_sent(workload).values())
    if workload.workers <= workers_a_node:
        return bits / machine.exchange
    return bits / min(machine.exchange, machine.network / workers_a_node)


def report_seconds(workload: Workload, machine: Machine) -> float:
    """Estimate an epoch's reports: every 50 steps and at a validation, waiting for Ray Train's poll.

    Source: pipelines.training.worker.RayReporter.
    """
    return machine.report * (workload.steps // REPORT_EVERY_STEPS + workload.validations)


def validation_seconds(workload: Workload, machine: Machine, threads: float) -> float:
    """Estimate an epoch's validations: users ranked by all workers, in whole tiles, and a sharded table gathered."""
    users = TILE_USERS * math.ceil(workload.validated / workload.workers / TILE_USERS)
    seconds = users * user_seconds(workload, machine) / machine.threads(threads)
    return workload.validations * (seconds + 8 * validation_received(workload) / machine.network)


def checkpoint_bytes(workload: Workload) -> float:
    """Count the table with its optimizer's state, and 12 P.  Source: pipelines.training.checkpoints."""
    row = table_row_bytes(workload.config.model.dim, workload.config.optim.table_optimizer)
    return row * workload.items + 12 * workload.parameters


def checkpoint_seconds(workload: Workload, machine: Machine) -> float:
    """Estimate an epoch's checkpoints: written aside, copied to home; by rank 0, or by all with a sharded table."""
    writers = workload.workers if workload.config.train.shard_items else 1
    return workload.validations * 2 * checkpoint_bytes(workload) / writers / machine.disk

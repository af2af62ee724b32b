"""Bytes that a worker puts on the network in a step. W workers, R distinct items of its batch, d wide, float32."""

from __future__ import annotations

from pipelines.plan.distinct_items import distinct_items
from pipelines.plan.memory import Parts
from pipelines.plan.workload import Workload


def step_sent(workload: Workload) -> Parts:
    """Count what a worker sends in a step: dense gradients over a ring, rows by `rows_sent`; negatives are no message.

    All ranks draw the same negatives: their rows are part of R on each of them. A sample touches at most one row of
    each profile feature.  Source: DistributedDataParallel, mind_core.training.Trainer.
    """
    workers, model = workload.workers, workload.config.model
    if workers == 1:
        return {}
    rows = distinct_items(workload, workload.rank_batch)
    found = {
        "dense gradients, all-reduce": 2 * (workers - 1) / workers * 4 * workload.parameters,
        "item rows": rows_sent(workers, rows, model.dim, workload.config.train.shard_items),
    }
    if workload.profile_features:
        profile = min(workload.rank_batch * workload.profile_features, workload.users)
        found["profile rows"] = rows_sent(workers, profile, model.profile_dim, sharded=False)
    return found


def rows_sent(workers: int, rows: float, dim: int, sharded: bool) -> float:
    """Count the bytes sent for `rows` distinct rows of a worker.

    replicated   (W - 1) (R (8 + 4 d) + 8): numbers, gradients and their count go to all others
    sharded      (W - 1) / W x R (16 + 8 d) + 16 (W - 1): numbers asked for twice, rows fetched, gradients sent, and
                 how many, twice

    Source: mind_core.distributed.exchange_rows; fetch_rows and send_to_owners.
    """
    if sharded:
        return (workers - 1) / workers * rows * (16 + 8 * dim) + 16 * (workers - 1)
    return (workers - 1) * (rows * (8 + 4 * dim) + 8)


def validation_received(workload: Workload) -> float:
    """Count what comes at each validation of a sharded table: all rows that lie elsewhere, V (W - 1) / W (8 + 4 d).

    Source: mind_core.embeddings.pool_all.
    """
    if not workload.config.train.shard_items:
        return 0.0
    return workload.items * (workload.workers - 1) / workload.workers * (8 + 4 * workload.config.model.dim)

"""``mind plan --measure``: this machine's rates, in under a minute. The one file of planning that needs torch and Ray.

A handful of shapes is timed, none of them the planned one, and the formulas' own terms are fitted to the times: what
comes out is what the formulas need to be right here. One thread, unless said otherwise.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import torch
import torch.distributed as dist
from scipy.optimize import nnls
from torch.multiprocessing.spawn import spawn

from mind_core.config import LossConfig, ModelConfig
from mind_core.evaluation import Targets, evaluate
from mind_core.features import item_bags
from mind_core.inference import MINDRetriever
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.search import Catalogue, search
from mind_core.sequences import Samples, Sequences
from mind_core.shelves import top_lists
from mind_core.special_rows import FIRST_ITEM
from mind_core.training import Trainer
from pipelines.cluster.address import cores
from pipelines.cluster.session import ray_session
from pipelines.cluster.template import OF_TRAINING
from pipelines.config.schema import Config, RayConfig
from pipelines.plan.machine import Machine
from pipelines.plan.ranking import search_seconds
from pipelines.plan.training import step_work
from pipelines.plan.workload import Workload
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.synthetic import generate
from pipelines.progress import console

LENGTH = 60  # events of each synthetic user
STEPS, REPEATS = 10, 5  # timed of a shape; the fastest repeat counts
TILE = 128
EXCHANGED = 2**20  # floats that a collective is measured with: a few megabytes, as in a step
SMALL_LOG, LARGE_LOG = 2**19, 5 * 2**19  # events: what an event costs is the difference ...
LARGE_PARTS = 4  # ... of so many parts, a task each
COUNTED = 4_000_000  # rows that are grouped
WRITTEN = 2**28  # bytes

# batch, L, K, negatives drawn either way, items
SHAPES = (
    (1024, 20, 4, 512, 30_000),
    (1024, 50, 4, 512, 200_000),
    (1024, 50, 4, 64, 30_000),
    (1024, 20, 1, 128, 1_000_000),
    (256, 20, 4, 512, 30_000),
    (256, 50, 2, 64, 200_000),
    (64, 10, 4, 32, 30_000),
    (1024, 50, 1, 32, 500),  # next to nothing but cells ...
    (64, 10, 1, 8192, 1_000_000),  # ... and but rows: else the two, which grow together, cannot be told apart
)
SEARCHES = ((20_000, 1, 4), (20_000, 4, 4), (20_000, 4, 64), (60_000, 4, 64), (60_000, 1, 64))  # items, K, d


def measured(machine: Machine, config: Config) -> Machine:
    """Measure this machine's cores, memory and rates; network, start-ups and empty processes stay.

    config : whose d, r and optimizer the steps are timed with.
    """
    machine = replace(machine, cores=cores(), memory=float(psutil.virtual_memory().total))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        console.print("Measuring training steps ...")
        machine = _steps(machine, config)
        console.print("Measuring ranking ...")
        machine = _ranking(machine, config)
        console.print("Measuring preprocessing ...")
        machine = replace(machine, clean=_cleaned(), group=_grouped())
        console.print("Measuring exchange and disk ...")
        return replace(machine, exchange=_exchanged(), disk=_written())
    finally:
        torch.set_num_threads(threads)


def _workload(config: Config, shape: tuple[int, ...]) -> Workload:
    """Make a workload of another shape, and with users of LENGTH events."""
    batch, history, interests, drawn, items = shape
    model = replace(config.model, max_history=history, interests=interests, encoder="mind")
    loss = replace(config.loss, kind="sampled", uniform_negatives=drawn, popularity_negatives=drawn, in_batch=False)
    train = config.train.model_copy(update={"batch_size": batch, "workers": 1, "targets_per_user": None})
    changed = config.model_copy(update={"model": model, "loss": loss, "train": train})
    return Workload(2e6, items, 2e6 / LENGTH, changed, head=1)


def _steps(machine: Machine, config: Config) -> Machine:
    """flop, cell, row and step by least squares of relative errors, none below 0; thread from the first shape."""
    terms, seconds = [], []
    for shape in SHAPES:
        workload = _workload(config, shape)
        work = step_work(workload)
        terms.append([work.flop, work.cells, work.rows, 1.0])
        seconds.append(_step_seconds(workload))
    costs = _fitted(terms, seconds)
    torch.set_num_threads(2)
    both = _step_seconds(_workload(config, SHAPES[0]))
    torch.set_num_threads(1)
    gain = (seconds[0] - costs[3]) / max(1e-9, both - costs[3]) - 1
    flop, cell, row = (1 / cost for cost in costs[:3])
    return replace(machine, flop=flop, cell=cell, row=row, step=costs[3], thread=min(1.0, max(0.05, gain)))


def _fitted(terms: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """Seconds of one unit of each term, above 0."""
    matrix = np.array(terms) / np.array(seconds)[:, None]
    scale = matrix.max(0)
    costs = nnls(matrix / scale, np.ones(len(seconds)))[0] / scale
    return [float(max(cost, 1e-3 / top)) for cost, top in zip(costs, scale, strict=True)]  # a thousandth: next to none


def _step_seconds(workload: Workload) -> float:
    sequences = _sequences(int(workload.items))
    trainer = _trainer(workload.config, sequences, int(workload.items))
    generator = torch.Generator().manual_seed(1)
    batch, users = workload.rank_batch, len(sequences)

    def samples() -> Samples:
        user = torch.randint(0, users, (batch,), generator=generator)
        place = torch.randint(1, LENGTH, (batch,), generator=generator)
        return Samples(user, user * LENGTH + place)

    def steps() -> None:
        for _ in range(STEPS):
            trainer.train_step(sequences, samples())

    return _least_seconds(steps) / STEPS


def _sequences(items: int) -> Sequences:
    """Items of rank r in proportion to log(1 + 1 / r), scattered over the table."""
    users = 8_000
    uniform = torch.rand(users * LENGTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rank = ((uniform * torch.tensor(items + 1.0).double().log()).exp() - 1).long().clamp_(max=items - 1)
    place = torch.randperm(items, generator=torch.Generator().manual_seed(0))[rank]
    return Sequences((place + FIRST_ITEM).int(), torch.arange(users + 1) * LENGTH)


def _trainer(config: Config, sequences: Sequences, items: int) -> Trainer:
    counts = torch.bincount(sequences.items.long(), minlength=items + FIRST_ITEM)
    loss: LossConfig = config.loss
    return Trainer(
        MIND(config.model, items + FIRST_ITEM, [], []),
        item_bags([], items + FIRST_ITEM),
        NegativeSampler(loss, counts),
        config.optim,
        total_steps=0,
        behaviour_dropout=config.train.behaviour_dropout,
        autocast=config.train.precision == "bfloat16",
    )


def _ranking(machine: Machine, config: Config) -> Machine:
    """score and product from searches, rank from lists; user from a catalogue so small that its search is nothing."""
    terms, seconds = [], []
    for items, interests, dim in SEARCHES:
        vectors, user = torch.randn(items, dim), torch.randn(TILE, interests, dim)
        own = torch.ones(TILE, interests, dtype=torch.bool)
        each = _least_seconds(lambda v=vectors, u=user, o=own: search(Catalogue(v), u, o, 51)) / TILE  # type: ignore[misc]
        terms.append([items * interests, items * interests * 2 * dim])
        seconds.append(each)
    score, product = (1 / cost for cost in _fitted(terms, seconds))
    dense, nobody = torch.randn(TILE, SEARCHES[0][0]), torch.zeros(0, dtype=torch.int64)
    listed = _least_seconds(lambda: top_lists(dense, (nobody, nobody), {"all": 51}))
    found = replace(machine, score=score, product=product, rank=dense.numel() / listed)
    return replace(found, user=_user_seconds(config, found))


def _user_seconds(config: Config, machine: Machine) -> float:
    items, users = 1_000, 2 * TILE
    model: ModelConfig = config.model if config.model.encoder != "popularity" else ModelConfig()
    sequences = _sequences(items)
    retriever = MINDRetriever.of(MIND(model, items + FIRST_ITEM, [], []).eval(), item_bags([], items + FIRST_ITEM))
    targets = Targets(torch.full((users,), FIRST_ITEM, dtype=torch.int32), torch.arange(users + 1))
    cutoffs, everyone = config.evaluate.cutoffs, torch.arange(users)
    cost = _least_seconds(lambda: evaluate(retriever, sequences, targets, everyone, cutoffs, exclude_seen=False))
    return max(1e-6, cost / users - search_seconds(items, model.interests, model.dim, machine))


def _cleaned() -> float:
    """Events a second and core: two logs, in one session of Ray."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder, ray_session(RayConfig(), preload=OF_TRAINING):
        for events in (SMALL_LOG, LARGE_LOG):
            root = Path(folder) / str(events)
            log = generate(root, events, events // 30, events // 100, features=False)
            source = {"path": str(log.events), "user": "user_id", "item": "item_id"}
            config = Config.model_validate({"name": "plan", "home": str(root), "data": {"events": source}})
            started = time.perf_counter()
            preprocess(config)
            seconds[events] = time.perf_counter() - started
    return (LARGE_LOG - SMALL_LOG) / max(1e-3, seconds[LARGE_LOG] - seconds[SMALL_LOG]) / min(cores(), LARGE_PARTS)


def _grouped() -> float:
    """Rows a second of adding item counts, three rows in four of items known before."""
    ids = np.random.default_rng(0).permutation(COUNTED) % (3 * COUNTED // 4)
    table = pa.table({"id": ids, "count": np.ones(COUNTED, np.int64)})
    return COUNTED / _least_seconds(lambda: table.group_by("id").aggregate([("count", "sum")]))


def _written() -> float:
    """Bytes a second to a temporary file, on the disk when it is closed."""
    block = os.urandom(2**22)
    with tempfile.NamedTemporaryFile() as file:
        started = time.perf_counter()
        for _ in range(WRITTEN // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return WRITTEN / (time.perf_counter() - started)


def _exchanged() -> float:
    """Bits a second that each of two processes sends in an all-gather over the loopback, both at it."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_gather, (folder,), nprocs=2)
        return float((Path(folder) / "rate").read_text())


def _gather(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    own, everyone = torch.ones(EXCHANGED), torch.empty(2 * EXCHANGED)
    seconds = _least_seconds(lambda: dist.all_gather_single(everyone, own))
    if rank == 0:
        (Path(folder) / "rate").write_text(str(8 * 4 * EXCHANGED / seconds))
    dist.barrier()
    dist.destroy_process_group()


def _least_seconds(work: Callable[[], object]) -> float:
    """Return the least of REPEATS, after one that does not count: what else runs on the machine only adds."""
    found: list[float] = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found[1:])

"""What a second worker brings, what the workers tell each other, and whether eight of them agree.

Plain processes and gloo, no Ray, one thread each. Part of benchmarks/train.py
"""

from __future__ import annotations

import hashlib
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from benchmarks.generated_steps import DROPOUT, Shape, make_samples, make_sequences, make_trainer
from benchmarks.measure import Options, interleaved, ratio, say, spread
from benchmarks.report import Finding, Sheet, Target
from mind_core.config import LossConfig
from mind_core.embeddings import WHOLE, Shard
from mind_core.sequences import Samples
from mind_core.special_rows import FIRST_ITEM
from mind_core.training import Trainer

ITEMS = 368_000
EXCHANGE_SIZES = (10_000, 1_000_000)
MANY = 8  # workers of the simulated run
FULL_ITEMS = 2_000  # of its comparison with one worker, where every item is a negative
WARM_UP = 5
TABLE = "item_table.weight"
TOLERANCE = 1e-4  # of a weight, after a few steps of sums in another order

# collective -> position of the tensor that this rank contributes
COLLECTIVES = {
    "all_gather_into_tensor": 1,
    "all_gather_single": 1,
    "all_reduce": 0,
    "all_to_all_single": 1,
    "broadcast": 0,
    "reduce_scatter_tensor": 1,
}
TO_SELF = "all_to_all_single"  # a part of what a rank contributes here stays with itself


@dataclass(frozen=True)
class GroupSetup:
    """What all ranks of a process group are given.

    batch : over all workers.  full : every item is a negative, no behaviour is hidden: nothing random is left, so that
    the number of workers must not matter.  sharded : each worker owns every workers-th row of the table.
    """

    workers: int
    items: int
    steps: int
    events: int
    batch: int = 1024
    full: bool = False
    sharded: bool = False


APART = "2 processes, no exchange"


def run(options: Options) -> Finding:
    """Speed, bytes, agreement."""
    speed, exchange, agreement = _speed(options), _exchange(options), _agreement(options)
    return Finding(
        {"speed": speed.figures, "exchange": exchange.figures, "agreement": agreement.figures},
        [*speed.sheets, *exchange.sheets, *agreement.sheets],
        [*speed.targets, *agreement.targets],
    )


def _speed(options: Options) -> Finding:
    items, events = (10_000, 200_000) if options.quick else (ITEMS, 4_000_000)
    steps = 5 if options.quick else 100
    setups = {
        "1 worker": GroupSetup(1, items, steps, events),
        "2 workers, same global batch": GroupSetup(2, items, steps, events),
        "2 workers, same batch each": GroupSetup(2, items, steps, events, batch=2048),
    }
    contenders = {name: partial(_spawn, _timed, setup) for name, setup in setups.items()}
    contenders[APART] = partial(_apart, setups["1 worker"])
    setups[APART] = setups["1 worker"]
    found = interleaved(contenders, options.rounds)
    rates = {name: spread([ranks[0]["samples_per_second"] for ranks in runs]) for name, runs in found.items()}
    gains = {name: ratio(rate, rates["1 worker"]) for name, rate in rates.items()}
    rows = [[name, f"{setups[name].batch:,}", rates[name].text(), gains[name].text(".2f")] for name in setups]
    notes = [
        "one thread each; every worker scores its own samples against the same 1,024 negatives",
        f"{APART}: two trainings of one worker at once, their samples together: what the machine allows",
    ]
    sheet = Sheet(f"Workers ({items:,} items)", ["", "global batch", "samples/s", "/ 1 worker"], rows, notes)
    figures = {name: {"samples_per_second": rates[name].figures(), "gain": gains[name].figures()} for name in setups}
    targets = [
        Target(f"{name} / 1 worker", gains[name].median, 1.7) for name in setups if name not in ("1 worker", APART)
    ]
    return Finding(figures, [sheet], targets)


def _apart(setup: GroupSetup) -> list[dict[str, Any]]:
    """Two processes that know nothing of each other: the most that two workers could do on this machine."""
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: _spawn(_timed, setup)[0], range(2)))
    return [{"samples_per_second": sum(each["samples_per_second"] for each in found)}]


def _exchange(options: Options) -> Finding:
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    for items in EXCHANGE_SIZES[:1] if options.quick else EXCHANGE_SIZES:
        for sharded in (False, True):
            kind = "sharded" if sharded else "replicated"
            say(f"  bytes exchanged at {items:,} items, {kind} table")
            found = _spawn(_counted, GroupSetup(2, items, 3 if options.quick else 10, 200_000, sharded=sharded))[0]
            table = 4 * Shape().dim * (items + FIRST_ITEM)
            figures[f"{items} {kind}"] = found | {"dense_table_gradient": table}
            sizes = (found["rows"], found["dense"], found["rows"] + found["dense"], table)
            calls = [f"{name} {count:g}" for name, count in found["calls"].items()]
            rows.append([f"{items:,}", kind, *map(_megabytes, sizes), ", ".join(calls)])
    columns = [
        "items",
        "table",
        "table rows",
        "dense parameters",
        "together",
        "a dense table's gradient",
        "calls a step",
    ]
    notes = [
        "MB of its own that a worker hands to the other in a step; dense: 4 bytes a parameter, through DDP",
        "a dense table: the gradient that a replicated nn.Embedding would exchange",
    ]
    return Finding(figures, [Sheet("Exchanged per step, 2 workers, global batch 1,024", columns, rows, notes)])


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.2f}"


def _agreement(options: Options) -> Finding:
    steps = 3 if options.quick else 10
    setup = GroupSetup(MANY, FULL_ITEMS, steps, 200_000, full=True)
    say(f"  {MANY} workers")
    many, alone = _spawn(_final_state, setup), _spawn(_final_state, GroupSetup(**{**asdict(setup), "workers": 1}))
    drawn = _spawn(_final_state, GroupSetup(MANY, FULL_ITEMS, steps, 200_000))
    sharded = _spawn(_final_state, GroupSetup(MANY, FULL_ITEMS, steps, 200_000, sharded=True))
    difference = max(
        float((value - alone[0]["weights"][name]).abs().max()) for name, value in many[0]["weights"].items()
    )
    moved = float((alone[0]["weights"][TABLE] - alone[0]["first"]).abs().max())
    same_full, same_drawn = (len({rank["digest"] for rank in ranks}) == 1 for ranks in (many, drawn))
    same_sharded = torch.equal(_assembled(sharded), drawn[0]["weights"][TABLE])
    rows = [
        ["full softmax: states of all replicas", _identical(same_full)],
        ["drawn negatives, behaviour dropout: states of all replicas", _identical(same_drawn)],
        ["the same with a sharded table: its rows and those of the replicas", _identical(same_sharded)],
        ["full softmax: largest difference of a weight from one worker", f"{difference:.1e}"],
        ["  the largest way a weight has gone", f"{moved:.1e}"],
    ]
    title = f"{MANY} workers, {steps} steps on the same global batches of 1,024"
    figures = {
        "bit_identical_full": same_full,
        "bit_identical_drawn": same_drawn,
        "bit_identical_sharded": same_sharded,
        "largest_difference": difference,
        "largest_way": moved,
    }
    correct = same_full and same_drawn and same_sharded and difference < TOLERANCE
    note = f"state: every weight, moment and counter; correct: identical, and within {TOLERANCE:g} of one worker"
    return Finding(figures, [Sheet(title, ["", ""], rows, [note])], [Target(f"{MANY} workers correct", correct, 1)])


def _identical(same: bool) -> str:
    return "bit-identical" if same else "DIFFER"


def _assembled(ranks: list[dict[str, Any]]) -> Tensor:
    """The whole table from its shards: row r lies on rank r % ranks."""
    shards = [rank["weights"][TABLE] for rank in ranks]
    whole = shards[0].new_empty(sum(map(len, shards)), shards[0].shape[1])
    for number, shard in enumerate(shards):
        whole[number :: len(shards)] = shard
    return whole


Task = Callable[[GroupSetup], dict[str, Any]]


def _spawn(task: Task, setup: GroupSetup) -> list[dict[str, Any]]:
    """Run `task` on all ranks; what each found."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (task, setup, folder), nprocs=setup.workers)
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(setup.workers)]


def _rank(rank: int, task: Task, setup: GroupSetup, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    if setup.workers > 1:
        rendezvous = f"file://{folder}/rendezvous"
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=setup.workers)
    torch.save(task(setup), Path(folder) / f"{rank}.pt")
    if setup.workers > 1:
        dist.barrier()
        dist.destroy_process_group()


def _prepare(setup: GroupSetup) -> tuple[Trainer, Callable[[Samples], Tensor], list[Samples]]:
    """The trainer, a step on this rank's share of a global batch, and the batches, warm-up first."""
    sequences = make_sequences(setup.items, "zipf", setup.events)
    rank = dist.get_rank() if setup.workers > 1 else 0
    trainer = make_trainer(
        sequences,
        setup.items,
        Shape(),
        loss=LossConfig(kind="full") if setup.full else LossConfig(),
        dropout=0.0 if setup.full else DROPOUT,
        shard=Shard(rank, setup.workers) if setup.sharded else WHOLE,
    )

    def step(batch: Samples) -> Tensor:
        own = torch.arange(rank, len(batch), setup.workers)
        return trainer.train_step(sequences, batch[own])

    return trainer, step, make_samples(sequences, setup.batch, WARM_UP + setup.steps, seed=1)


def _timed(setup: GroupSetup) -> dict[str, Any]:
    _, step, batches = _prepare(setup)
    for batch in batches[:WARM_UP]:
        step(batch)
    _meet(setup)
    started = time.perf_counter()
    for batch in batches[WARM_UP:]:
        step(batch)
    _meet(setup)
    return {"samples_per_second": setup.steps * setup.batch / (time.perf_counter() - started)}


def _meet(setup: GroupSetup) -> None:
    if setup.workers > 1:
        dist.barrier()


def _counted(setup: GroupSetup) -> dict[str, Any]:
    """Bytes and calls per step."""
    trainer, step, batches = _prepare(setup)
    step(batches[0])
    sent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    count_collectives(sent, calls)
    for batch in batches[1 : 1 + setup.steps]:
        step(batch)
    dense = 4 * sum(parameter.numel() for parameter in trainer.objective.parameters() if parameter.requires_grad)
    return {
        "rows": sum(sent.values()) / setup.steps,
        "dense": dense,
        "calls": {name: count / setup.steps for name, count in calls.items()},
    }


def count_collectives(sent: Counter[str], calls: Counter[str]) -> None:
    """From here on, add up what this process hands to collectives: bytes, and calls."""
    for name, position in COLLECTIVES.items():
        if hasattr(dist, name):  # names differ between releases of torch
            setattr(dist, name, _counting(name, position, getattr(dist, name), sent, calls))


def _counting(
    name: str, position: int, collective: Callable[..., Any], sent: Counter[str], calls: Counter[str]
) -> Callable[..., Any]:
    """A collective that adds up the bytes of its own that a rank hands to the others, and the calls."""

    @wraps(collective)
    def count(*values: Any) -> Any:
        given: Tensor = values[position]
        own = 0
        if name == TO_SELF:  # (output, input[, sizes out, sizes in]): equal parts without sizes
            own = values[3][dist.get_rank()] if len(values) > 3 else len(given) // dist.get_world_size()
        sent[name] += (len(given) - own) * given[0].numel() * given.element_size() if len(given) else 0
        calls[name] += 1
        return collective(*values)

    return count


def _final_state(setup: GroupSetup) -> dict[str, Any]:
    trainer, step, batches = _prepare(setup)
    first = trainer.model.item_table.weight.clone()
    for batch in batches[: setup.steps]:
        step(batch)
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    digest = hashlib.blake2b()
    for name, value in sorted({**weights, **trainer.state_dict()}.items()):
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    return {"digest": digest.hexdigest(), "weights": weights, "first": first}

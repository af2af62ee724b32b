"""What a training step costs on a GPU: the prepared script for a machine that is lent for ten minutes.

    python benchmarks/gpu.py [--quick] [--seconds 480] [--out gpu.json]      needs torch and mind_core, nothing else
    python -m pip install --no-deps torch-rechub                              beforehand, to have it beside

Samples/s at 10 k, 367 k and 10 M items, in float32, in bfloat16 and with torch.compile, in turns; how much of the
device's time is matrix products; how far a step is from what the card can do (the roofline): its operations over the
rate of a large product, its bytes over the rate of a large copy, both measured here. Without a GPU it runs on the CPU,
so that it can be tried out. No point begins after `--seconds`; what was left out is said.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # run as a file, on a machine where nothing is installed
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.generated_steps import (
    Shape,
    device_name,
    distinct_items,
    fits,
    make_samples,
    make_sequences,
    make_trainer,
    seconds_per_step,
    wait_for,
)
from benchmarks.measure import machine, say, spread
from benchmarks.train_floor import Speeds, Work, measure_speeds
from mind_core.sequences import Samples, Sequences
from mind_core.training import Trainer

SIZES = (10_000, 367_000, 10_000_000)
WAYS = ("float32", "bfloat16", "float32, compiled")
WARM_UP = 5
PRODUCTS = ("gemm", "gemv", "cutlass", "matmul", "aten::mm", "aten::bmm", "aten::addmm", "sdpa", "flash")


@dataclass(frozen=True)
class Point:
    """One size and way.

    rate : samples/s, the median.  low, high : of the rounds.
    products : share of the device's busy time in matrix products.
    busy : share of a step in which the device was busy; the rest is launching and waiting.
    flop, bytes_moved : of a step: its products, and the rows that it reads and writes with their optimiser's state.
    roofline : the time that a step must take on this card (the larger of both) over the time that it took.
    """

    items: int
    way: str
    rate: float
    low: float
    high: float
    products: float
    busy: float
    flop: float
    bytes_moved: float
    roofline: float


def _seconds(call: Callable[[], object], device: torch.device, times: int = 5) -> float:
    call()
    wait_for(device)
    started = time.perf_counter()
    for _ in range(times):
        call()
    wait_for(device)
    return (time.perf_counter() - started) / times


def trainers(items: int, shape: Shape, sequences: Sequences, device: torch.device) -> dict[str, Trainer]:
    """Make a trainer for each way."""
    made = {way: make_trainer(sequences, items, shape, device=device) for way in WAYS}
    made["bfloat16"].autocast = True
    made["float32, compiled"].objective.compile(dynamic=True)
    return made


def device_times(trainer: Trainer, sequences: Sequences, batches: list[Samples]) -> tuple[float, float]:
    """Profile some steps: the share of matrix products in the device's busy time, and that time in seconds a step."""
    cuda = trainer.device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    with profile(activities=activities) as found:
        seconds_per_step(trainer, sequences, batches)
    products = busy = 0.0
    for each in found.key_averages():
        took = each.self_device_time_total if cuda else each.self_cpu_time_total
        busy += took
        products += took * any(name in each.key.lower() for name in PRODUCTS)
    return products / max(busy, 1e-9), busy / 1e6 / len(batches)


def bytes_of_step(trainer: Trainer, sequences: Sequences, batch: Samples) -> float:
    """Bytes of table rows that a step must move: each distinct row and Adam's two moments are read and written."""
    return 2.0 * 3 * 4 * distinct_items(trainer, sequences, batch) * trainer.model.config.dim


def point(
    way: str,
    items: int,
    trainer: Trainer,
    sequences: Sequences,
    batches: list[Samples],
    speeds: Speeds,
    rates: list[float],
) -> Point:
    """Add to measured rates what one way's step consists of."""
    products, busy = device_times(trainer, sequences, batches[:3])
    with FlopCounterMode(display=False) as counted:
        trainer.train_step(sequences, batches[0])
    flop, moved, found = float(counted.get_total_flops()), bytes_of_step(trainer, sequences, batches[0]), spread(rates)
    least = Work(moved, flop).floor(speeds, bfloat16=way == "bfloat16")
    took = len(batches[0]) / found.median
    return Point(
        items, way, found.median, min(rates), max(rates), products, min(1.0, busy / took), flop, moved, least / took
    )


def rechub_rate(items: int, batch: int, history: int, device: torch.device) -> float | None:
    """Samples/s of torch-rechub's MIND on the same device, 3 negatives as in its tutorial; None where it is missing."""
    try:
        from torch_rechub.basic.features import SequenceFeature
        from torch_rechub.models.matching import MIND as Theirs
    except ImportError:
        return None
    width, past = items + 2, "history"
    table = {"vocab_size": width, "embed_dim": 64, "pooling": "concat"}
    model = Theirs(
        user_features=[],
        history_features=[SequenceFeature(past, **table, shared_with="item")],
        item_features=[SequenceFeature("item", **table)],
        neg_item_feature=[SequenceFeature("negatives", **table, shared_with="item")],
        max_length=history,
        temperature=0.02,
    ).to(device)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=1e-6)
    shapes = {past: (batch, history), "item": (batch, 1), "negatives": (batch, 3)}
    drawn = {name: torch.randint(2, width, shape, device=device) for name, shape in shapes.items()}
    label = torch.zeros(batch, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(drawn), label).backward()
        optimizer.step()

    return batch / _seconds(step, device, 20)


def main() -> None:
    """Measure, print a table, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke run, whose figures mean nothing")
    parser.add_argument("--seconds", type=float, default=480, help="no point begins after so many")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args()
    started, device = time.perf_counter(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    speeds = measure_speeds(device, options.quick)
    shape = Shape(batch=64) if options.quick else Shape(batch=8192 if device.type == "cuda" else 1024, history=50)
    steps, rounds = (3, 2) if options.quick else (30, 5)
    points, theirs = list[Point](), dict[int, float]()
    for items in SIZES[:1] if options.quick else SIZES:
        if time.perf_counter() - started > options.seconds or not fits(3 * items, shape.dim, device):
            say(f"{items:,} items: left out, for want of time or memory")
            continue
        sequences = make_sequences(items, "zipf", 20_000 if options.quick else 4_000_000).to(device)
        batches = make_samples(sequences, shape.batch, steps, seed=1)
        made = trainers(items, shape, sequences, device)
        for trainer in made.values():
            seconds_per_step(trainer, sequences, batches[:WARM_UP])
        rates: dict[str, list[float]] = {way: [] for way in made}
        for _ in range(rounds):
            for way, trainer in made.items():
                rates[way].append(shape.batch / seconds_per_step(trainer, sequences, batches))
        points += [point(way, items, each, sequences, batches, speeds, rates[way]) for way, each in made.items()]
        for each in points[-len(made) :]:
            print(
                f"{items:>10,}  {each.way:<18}{each.rate:>12,.0f} samples/s ({each.low:,.0f} to {each.high:,.0f})"
                f"  products {each.products:.0%}  busy {each.busy:.0%}  of the roofline {each.roofline:.0%}",
                flush=True,
            )
        if (rate := rechub_rate(items, shape.batch, shape.history, device)) is not None:
            theirs[items] = rate
            print(f"{items:>10,}  {'torch-rechub':<18}{rate:>12,.0f} samples/s", flush=True)
    if options.out is not None:
        found = {
            "machine": machine(),
            "device": device_name(device),
            "speeds": asdict(speeds),
            "points": [asdict(each) for each in points],
        }
        options.out.write_text(json.dumps({**found, "torch-rechub": theirs}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

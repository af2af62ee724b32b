"""How far is a training step from what its bytes and operations must take?  Part of benchmarks/train_tables.py

The device's speed is measured, not looked up: a large copy for bytes, a large product for operations. The floor of a
step is the longer of the two times, as if everything else were free and both overlapped perfectly.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

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
from benchmarks.measure import Options, Spread, interleaved, say, spread
from benchmarks.report import Finding, Sheet
from mind_core.sequences import Samples, Sequences
from mind_core.training import Trainer

NEGATIVES = 1024
WARM_UP = 10


@dataclass(frozen=True)
class Speeds:
    """The device's, measured: bytes/s of a copy (read and write counted), operations/s of a product by precision."""

    bytes_per_second: float
    float32: float
    bfloat16: float


@dataclass(frozen=True)
class Work:
    """What a step cannot do without: bytes to and from memory, floating-point operations in matrix products."""

    bytes: float
    operations: float

    def floor(self, speeds: Speeds, bfloat16: bool) -> float:
        """Seconds."""
        rate = speeds.bfloat16 if bfloat16 else speeds.float32
        return max(self.bytes / speeds.bytes_per_second, self.operations / rate)


def work_of(shape: Shape, distinct: float, negatives: int = NEGATIVES, hidden: int = 128) -> Work:
    """Count a step with Adam on `distinct` rows.

    Bytes: each distinct row is read once for the block; its update reads row, gradient and two moments and writes
    row and moments; the block and its gradient are written once. Behaviours, scores and other intermediate tensors
    could stay in caches and registers: they count nothing.
    Operations: a product costs 2 m n k, and twice that again for its two gradients.
    """
    d, users, events = shape.dim, shape.batch, shape.batch * shape.history
    row = 4 * d
    moved = distinct * row * (1 + 2 + 7)
    mapped = 3 * 2 * events * d * d  # S e_i
    pooled = 2 * events * shape.interests * d  # sum_i w_ij S e_i, or the agreement u_j . S e_i
    routing = 2 * (shape.iterations - 1) * pooled + 3 * pooled  # all but the last iteration have no gradient
    layers = 3 * 2 * users * shape.interests * 2 * d * hidden
    scores = 3 * 2 * users * shape.interests * negatives * d
    return Work(moved, mapped + routing + layers + scores)


def measure_speeds(device: torch.device, quick: bool) -> Speeds:
    """Median of several copies and products."""
    on_gpu = device.type == "cuda"
    numbers = 2**20 if quick else 2**28 if on_gpu else 2**26
    size = 256 if quick else 8192 if on_gpu else 2048
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    copy = _median_seconds(lambda: target.copy_(source), device)
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(size, size, device=device).to(dtype)
        rates[dtype] = 2 * size**3 / _median_seconds(partial(torch.matmul, matrix, matrix), device)
    return Speeds(2 * 4 * numbers / copy, rates[torch.float32], rates[torch.bfloat16])


def _median_seconds(action: Callable[[], Any], device: torch.device) -> float:
    times = []
    for _ in range(9):
        wait_for(device)
        started = time.perf_counter()
        action()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def run(options: Options, device: torch.device | None = None) -> Finding:
    """Step times over the floor; on a CPU where no GPU is at hand."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speeds = measure_speeds(device, options.quick)
    rows: list[list[str]] = []
    figures: dict[str, Any] = {"device": str(device), "speeds": vars(speeds), "steps": {}}
    for items in _sizes(options, device):
        for dim in (64, 128):
            if not fits(items, dim, device):
                say(f"  {items:,} items, d = {dim}: left out, it does not fit in memory")
                continue
            say(f"  {items:,} items, d = {dim}")
            for case in _cases(options, items, dim, device, speeds):
                rows.append(case.cells())
                figures["steps"][case.name] = case.figures()
    return Finding(figures, [_sheet(device, speeds, rows)])


def _sizes(options: Options, device: torch.device) -> list[int]:
    if options.quick:
        return [10_000]
    return [1_000_000, 10_000_000] if device.type == "cuda" else [1_000_000]


@dataclass(frozen=True)
class Case:
    """Step times of one table, batch and precision, and the work of its step."""

    items: int
    shape: Shape
    bfloat16: bool
    distinct: int
    seconds: Spread
    work: Work
    floor: float

    @property
    def name(self) -> str:
        precision = "bfloat16" if self.bfloat16 else "float32"
        return f"{self.items} items, d = {self.shape.dim}, batch {self.shape.batch}, {precision}"

    def cells(self) -> list[str]:
        rate = self.shape.batch / self.seconds.median
        milliseconds = spread([1e3 * value for value in self.seconds.values])
        return [
            f"{self.items:,}",
            str(self.shape.dim),
            f"{self.shape.batch:,}",
            "bfloat16" if self.bfloat16 else "float32",
            f"{rate:,.0f}",
            milliseconds.text(".2f"),
            f"{1e3 * self.floor:.3f}",
            f"{self.seconds.median / self.floor:.1f}",
            f"{self.work.bytes / 1e6:.0f}",
            f"{self.work.operations / 1e9:.2f}",
        ]

    def figures(self) -> dict[str, Any]:
        return {
            "samples_per_second": self.shape.batch / self.seconds.median,
            "step_seconds": self.seconds.figures(),
            "floor_seconds": self.floor,
            "over_floor": self.seconds.median / self.floor,
            "bytes": self.work.bytes,
            "operations": self.work.operations,
            "distinct_items": self.distinct,
        }


def _cases(options: Options, items: int, dim: int, device: torch.device, speeds: Speeds) -> list[Case]:
    """One table; every batch size and precision, interleaved."""
    on_gpu = device.type == "cuda"
    batches = [1024, 16_384] if on_gpu and not options.quick else [1024]
    precisions = [False, True] if on_gpu else [False]
    sequences = make_sequences(items, "zipf", 200_000 if options.quick else 4_000_000)
    trainer = make_trainer(sequences, items, Shape(dim=dim), device=device)
    sequences = sequences.to(device)
    steps = 3 if options.quick else 50 if on_gpu else 20
    runs = {
        (batch, precision): _Run(trainer, sequences, make_samples(sequences, batch, steps, seed=1), precision)
        for batch in batches
        for precision in precisions
    }
    for measured in runs.values():
        measured(WARM_UP)
    names = {f"d = {dim}, batch {batch}, bfloat16: {precision}": (batch, precision) for batch, precision in runs}
    seconds = interleaved({name: runs[key] for name, key in names.items()}, 2 if options.quick else options.rounds)
    cases = []
    for name, (batch, precision) in names.items():
        shape = Shape(dim=dim, batch=batch)
        distinct = distinct_items(trainer, sequences, runs[batch, precision].batches[0])
        work = work_of(shape, distinct)
        floor = work.floor(speeds, precision)
        cases.append(Case(items, shape, precision, distinct, spread(seconds[name]), work, floor))
    return cases


class _Run:
    """Steps of one batch size in one precision; several share a table."""

    def __init__(self, trainer: Trainer, sequences: Sequences, batches: list[Samples], bfloat16: bool):
        self.trainer, self.sequences, self.batches, self.bfloat16 = trainer, sequences, batches, bfloat16

    def __call__(self, steps: int | None = None) -> float:
        self.trainer.autocast = self.bfloat16
        return seconds_per_step(self.trainer, self.sequences, self.batches[:steps])


def _sheet(device: torch.device, speeds: Speeds, rows: list[list[str]]) -> Sheet:
    columns = ["items", "d", "batch", "precision", "samples/s", "ms a step", "floor, ms", "/ floor", "MB", "GFLOP"]
    notes = [
        f"measured here: copy {speeds.bytes_per_second / 1e9:,.0f} GB/s, product "
        f"{speeds.float32 / 1e12:,.2f} TFLOP/s in float32, {speeds.bfloat16 / 1e12:,.2f} in bfloat16",
        "floor: the longer of bytes / copy speed and operations / product speed; bytes of table rows alone",
    ]
    if device.type != "cuda":
        notes.append("no GPU at hand: this is the CPU")
    return Sheet(f"Step time over its floor, {device_name(device)}", columns, rows, notes)

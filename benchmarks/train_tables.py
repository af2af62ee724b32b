"""Does a training step cost what its batch costs, whatever the table's size?  python benchmarks/train_tables.py

Samples/s of `mind_core.training.Trainer` at 10 k to 10 M items, and the memory that a table row takes. Needs nothing
but torch and mind_core: where a GPU is at hand it measures that, and the floor of `benchmarks/train_floor.py` too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a file, on a machine where nothing is installed
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.generated_steps import (
    MAKE_UP_BYTES,
    SAMPLER_BYTES,
    Law,
    Shape,
    TableOptimizer,
    device_name,
    distinct_items,
    fits,
    make_samples,
    make_sequences,
    make_trainer,
    row_bytes,
    seconds_per_step,
)
from benchmarks.measure import Options, Spread, interleaved, machine, peak_bytes, ratio, say, spread
from benchmarks.measure import resident_bytes as resident_bytes_of_process
from benchmarks.report import Finding, Sheet, Target, show_finding, targets_sheet
from mind_core.config import LossConfig, OptimConfig
from mind_core.features import item_bags
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.special_rows import FIRST_ITEM
from mind_core.training import Trainer

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
LAWS: tuple[Law, ...] = ("zipf", "uniform")
WARM_UP = 5


def run(options: Options, device: torch.device | None = None) -> Finding:
    """Speed at every size, then memory per row."""
    device = device or torch.device("cpu")
    sizes = SIZES[:2] if options.quick else SIZES
    fitting = [size for size in sizes if fits(size, Shape().dim, device)]
    for size in sorted(set(sizes) - set(fitting)):
        say(f"  {size:,} items: left out, {row_bytes(64, 'adam') * size / 1e9:.1f} GB and their making do not fit")
    speed = _speed(options, fitting, device)
    memory = _memory(options, fitting, device)
    return Finding(
        {"device": device_name(device), "speed": speed.figures, "memory": memory.figures},
        [*speed.sheets, *memory.sheets],
        speed.targets,
    )


def _speed(options: Options, sizes: list[int], device: torch.device) -> Finding:
    shape, events = Shape(), 200_000 if options.quick else 4_000_000
    steps, rounds = (3, 2) if options.quick else (30, 2 * options.rounds + 1)
    contenders: dict[str, Callable[[], float]] = {}
    touched: dict[str, float] = {}
    for items in sizes:
        say(f"  building {items:,} items")
        by_law = {law: make_sequences(items, law, events) for law in LAWS}
        trainer = make_trainer(by_law["zipf"], items, shape, device=device)
        for law in LAWS:
            sequences = by_law[law].to(device)
            warm_up, *more = make_samples(sequences, shape.batch, WARM_UP + 1, seed=1)
            seconds_per_step(trainer, sequences, more)
            touched[f"{items} {law}"] = distinct_items(trainer, sequences, warm_up)
            contenders[f"{items} {law}"] = _Measured(trainer, sequences, shape.batch, steps)
    seconds = interleaved(contenders, rounds)
    speeds = {name: spread([shape.batch / s for s in values]) for name, values in seconds.items()}
    return _speed_finding(speeds, touched, sizes)


class _Measured:
    """Runs other batches at every call, as training does: rows that are still in the cache would flatter."""

    def __init__(self, trainer: Trainer, sequences: Any, batch: int, steps: int):
        self.trainer, self.sequences, self.batch, self.steps = trainer, sequences, batch, steps
        self.calls = 1

    def __call__(self) -> float:
        self.calls += 1
        batches = make_samples(self.sequences, self.batch, self.steps, seed=self.calls)
        return seconds_per_step(self.trainer, self.sequences, batches)


def _speed_finding(speeds: dict[str, Spread], touched: dict[str, float], sizes: list[int]) -> Finding:
    rows, targets = [], []
    figures: dict[str, Any] = {}
    for law in LAWS:
        for items in sizes:
            name = f"{items} {law}"
            against = ratio(speeds[name], speeds[f"{sizes[0]} {law}"])
            rows.append([f"{items:,}", law, f"{touched[name]:,.0f}", speeds[name].text(), against.text(".2f")])
            figures[name] = {
                "samples_per_second": speeds[name].figures(),
                "distinct_items_per_step": touched[name],
                "against_smallest": against.figures(),
            }
        largest = ratio(speeds[f"{sizes[-1]} {law}"], speeds[f"{sizes[0]} {law}"]).median
        targets.append(Target(f"samples/s at {sizes[-1]:,} / {sizes[0]:,} items, {law}", largest, 0.7))
    sheet = Sheet(
        "Samples/s by the number of items (batch 1,024, d = 64, L = 20, K = 4, r = 3, 1,024 shared negatives)",
        ["items", "drawn", "distinct items a step", "samples/s", f"/ {sizes[0]:,} items"],
        rows,
        ["uniform is the worst case: hardly any row twice. More items also mean more distinct ones in a step."],
    )
    return Finding(figures, [sheet], targets)


def _memory(options: Options, sizes: list[int], device: torch.device) -> Finding:
    common = min(1_000_000, sizes[-1])
    cases: list[tuple[TableOptimizer, int]] = [("adam", common), ("adagrad", common)]
    if sizes[-1] > common:
        cases.append(("adam", sizes[-1]))
    rows, figures = [], {}
    for optimizer, items in cases:
        say(f"  memory of {items:,} rows with {optimizer}")
        found = _in_a_fresh_process(optimizer, items, device)
        formula = row_bytes(64, optimizer)
        figures[f"{optimizer} {items}"] = found | {"row_bytes_by_formula": formula}
        per_row = found["table_and_state"] / items
        others = (found["make_up"] + found["sampler"]) / items
        rows.append(
            [f"{items:,}", optimizer, f"{formula}", f"{per_row:.0f}", f"{others:.0f}", f"{found['peak'] / 1e9:.2f} GB"]
        )
    sheet = Sheet(
        "Memory per table row (d = 64)",
        ["items", "optimiser", "row + state, formula", "row + state, measured", "make-up + sampler", "peak of all"],
        rows,
        [
            "formula: adam 3 x 4 d + 4 bytes (row, two moments, count), adagrad 4 d + 4 (row, one sum)",
            f"formula of an item without features: make-up {MAKE_UP_BYTES}, negative sampler {SAMPLER_BYTES} bytes; "
            "the peak includes the interpreter, torch and what is only there while these are made",
        ],
    )
    return Finding(figures, [sheet])


def _in_a_fresh_process(optimizer: str, items: int, device: torch.device) -> dict[str, float]:
    command = [sys.executable, __file__, "--memory", optimizer, str(items), "--device", device.type]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"train_tables: memory of {items:,} rows: {(done.stderr.strip() or 'killed').splitlines()[-1]}"
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure_memory(optimizer: str, items: int, device: torch.device) -> dict[str, float]:
    """Bytes that each part of a training holds, measured one after the other, and the peak of all."""
    rows = items + FIRST_ITEM
    held = partial(_held, device)
    sequences = make_sequences(items, "zipf", 200_000)
    there = sequences.to(device)
    batches = make_samples(there, Shape().batch, 3, seed=1)
    small = make_sequences(1000, "zipf", 200_000)  # first use: libraries load what they need
    seconds_per_step(make_trainer(small, 1000, Shape(), device=device), small.to(device), batches)
    before = held()
    bags = item_bags([], rows).to(device)
    make_up = held()
    counts = torch.bincount(sequences.items.long(), minlength=rows)
    with_counts = held()
    sampler = NegativeSampler(LossConfig(), counts).to(device)
    with_sampler = held()
    model = MIND(Shape().model, rows, [], [], 0).to(device)
    optim = OptimConfig(table_optimizer="adam" if optimizer == "adam" else "adagrad")
    trainer = Trainer(model, bags, sampler, optim, total_steps=0, behaviour_dropout=0.2)
    table_and_state = held() - with_sampler
    seconds_per_step(trainer, there, batches)
    return {
        "make_up": make_up - before,
        "sampler": with_sampler - with_counts,
        "table_and_state": table_and_state,
        "peak": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes(),
    }


def _held(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else resident_bytes_of_process()


def main() -> None:
    """Run this section alone, and the floor as well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures mean nothing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--memory", nargs=2, metavar=("OPTIMIZER", "ITEMS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.memory:
        print(json.dumps(measure_memory(arguments.memory[0], int(arguments.memory[1]), device)))
        return
    from benchmarks import train_floor

    options = Options(Path(tempfile.gettempdir()), quick=arguments.quick, rounds=arguments.rounds)
    found = {"tables": run(options, device), "gpu": train_floor.run(options, device)}
    for finding in found.values():
        show_finding(finding)
    show_finding(Finding({}, [targets_sheet([t for finding in found.values() for t in finding.targets])]))
    if arguments.out:
        figures = {name: finding.figures for name, finding in found.items()}
        arguments.out.write_text(json.dumps({"machine": machine(), "torch": torch.__version__, **figures}, indent=1))


if __name__ == "__main__":
    main()

"""Samples/s at 368 k items: torch-rechub's MIND, our bare loop, and ours through `mind train`.

All on the same two cores and the same generated log: d = 64, L = 20, K = 4, r = 3, batch 1,024; one after the other,
round by round. Part of benchmarks/train.py
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cli_runs import Generated, generated, mind_train
from benchmarks.dataset_loop import load
from benchmarks.measure import Options, Spread, interleaved, json_of, ratio, say, spread
from benchmarks.peers.export import export
from benchmarks.peers.install import rechub_python
from benchmarks.report import Finding, Sheet, Target
from pipelines.dataset.dataset import Dataset

NAME = "bench-368k"
# of 445,000 items that the generator deals with, about 368,000 occur in 4 M events
EVENTS, USERS, ITEMS = 4_000_000, 100_000, 445_000
TARGETS_PER_USER = 10  # 1 M samples: a bit over half a minute of `mind train`

RECHUB, BARE, DENSE = "torch-rechub 0.9.0", "ours, bare loop", "ours with dense Adam, bare loop"
TRAIN_1, TRAIN_2 = "mind train, 1 worker x 2 threads", "mind train, 2 workers x 1 thread"
TRAIN_BF16 = f"{TRAIN_1}, bfloat16"


@dataclass(frozen=True)
class Measured:
    """Samples/s in the steady state of one run, and what else it told."""

    rate: float
    more: dict[str, Any] = field(default_factory=dict)


def run(options: Options) -> Finding:
    """Make the log, then measure all contenders in turn."""
    made = _log(options)
    python = rechub_python(options)
    dataset = Dataset.open(made.dataset)
    data = load(dataset)
    arrays = export(data, options.scratch / "peers.npz", torch.arange(0), with_users=False)
    home = made.fresh_home(options.scratch / "peers-home")
    steps = 3 if options.quick else 20
    loop_steps = 20 if options.quick else 400
    contenders: dict[str, Callable[[], Measured]] = {
        RECHUB: partial(_rechub, python, arrays, steps),
        BARE: partial(_bare, made, "rows", loop_steps),
        DENSE: partial(_bare, made, "dense", max(10, loop_steps // 10)),
        TRAIN_1: partial(_train, made, home, workers=1, threads=2),
        TRAIN_2: partial(_train, made, home, workers=2, threads=1),
        TRAIN_BF16: partial(_train, made, home, workers=1, threads=2, precision="bfloat16"),
    }
    return _finding(interleaved(contenders, options.rounds), dataset.manifest.items)


def _log(options: Options) -> Generated:
    say("  the log of 368 k items: made once, then kept in the cache")
    sizes = (100_000, 5_000, 20_000) if options.quick else (EVENTS, USERS, ITEMS)
    settings = f"""\
model: {{max_history: 20}}
train: {{epochs: 1, targets_per_user: {TARGETS_PER_USER}, validation_users: 512}}
"""
    return generated(options.cache, NAME, *sizes, settings)


def _rechub(python: Path, arrays: Path, steps: int) -> Measured:
    script = Path(__file__).parent / "peers" / "rechub.py"
    found = json_of([str(python), str(script), "speed", str(arrays), "--steps", str(steps)])
    return Measured(found.pop("samples_per_second"), found)


def _bare(made: Generated, optimizer: str, steps: int) -> Measured:
    words = ["--optimizer", optimizer, "--steps", str(steps), "--threads", "2"]
    found = json_of([sys.executable, "-m", "benchmarks.dataset_loop", str(made.conf), str(made.dataset), *words])
    return Measured(statistics.median(found["rates"]), found)


def _train(made: Generated, home: Path, workers: int, threads: int, precision: str = "float32") -> Measured:
    sets = [f"train.workers={workers}", f"train.threads={threads}", f"train.precision={precision}"]
    ran = mind_train(made.conf, home, *sets)
    rates = ran.values("train/samples_per_second")
    steady = rates[1:] or rates  # the first interval has the first use of everything
    total = sum(value for name in ran.metrics if name == "startup/total" for value in ran.values(name))
    return Measured(statistics.median(steady), {"rates": rates, "wall_seconds": ran.seconds, "startup_seconds": total})


def _finding(found: dict[str, list[Measured]], items: int) -> Finding:
    rates = {name: spread([measured.rate for measured in runs]) for name, runs in found.items()}
    figures: dict[str, Any] = {"items": items}
    rows = []
    for name, runs in found.items():
        times_rechub, times_bare = ratio(rates[name], rates[RECHUB]), ratio(rates[name], rates[BARE])
        figures[name] = {
            "samples_per_second": rates[name].figures(),
            "times_rechub": times_rechub.figures(),
            "times_bare_loop": times_bare.figures(),
            "runs": [measured.more for measured in runs],
        }
        wall = [f"{m.more['wall_seconds']:.0f}" for m in runs if "wall_seconds" in m.more]
        cells = [rates[name].text(), times_rechub.text(".1f"), times_bare.text(".2f"), ", ".join(wall)]
        rows.append([name, *cells])
    columns = ["contender", "samples/s", "/ torch-rechub", "/ bare loop", "whole command, s"]
    notes = [
        "d = 64, L = 20, K = 4, r = 3, batch 1,024; torch-rechub 3 negatives per sample, ours 1,024 for the batch",
        "mind train: median of the train/samples_per_second in MLflow but the first; the whole command starts and",
        f"stops Ray, trains {TARGETS_PER_USER} samples per user, validates, writes the model and logs it",
    ]
    speed = Sheet(f"Training at {items:,} items, two cores", columns, rows, notes)
    best = max((TRAIN_1, TRAIN_2, TRAIN_BF16), key=lambda name: rates[name].median)
    targets = [
        Target(f"{best} / torch-rechub", ratio(rates[best], rates[RECHUB]).median, 20),
        Target(f"{TRAIN_1} / bare loop", ratio(rates[TRAIN_1], rates[BARE]).median, 0.9),
        Target(f"{TRAIN_2} / bare loop", ratio(rates[TRAIN_2], rates[BARE]).median, 0.9),
    ]
    return Finding(figures, [speed, _parts_sheet(found[RECHUB])], targets)


def _parts_sheet(runs: list[Measured]) -> Sheet:
    parts = {name: _part(runs, name) for name in runs[0].more["step_parts_seconds"]}
    total = sum(part.median for part in parts.values())
    rows = [
        [name, spread([1e3 * value for value in part.values]).text(".1f"), f"{part.median / total:.0%}"]
        for name, part in sorted(parts.items(), key=lambda pair: -pair[1].median)
    ]
    return Sheet("Where torch-rechub's step goes", ["part", "ms a step", "share"], rows)


def _part(runs: list[Measured], name: str) -> Spread:
    return spread([measured.more["step_parts_seconds"].get(name, 0.0) for measured in runs])

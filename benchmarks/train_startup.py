"""Seconds from `mind train` to its first training step, and what they are spent on. Part of benchmarks/train.py"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.cli_runs import Run, generated, mind_train
from benchmarks.measure import Options, interleaved, spread
from benchmarks.report import Finding, Sheet

NAME = "bench-small"
WORKERS = (1, 2)
PREFIX = "startup/"


def run(options: Options) -> Finding:
    """Three starts each with one worker and with two; a start before them makes the MLflow database."""
    settings = "train: {epochs: 1}\n"
    made = generated(options.cache, NAME, 100_000, 2_000, 1_000, settings)
    home = made.fresh_home(options.scratch / "startup-home")
    first = mind_train(made.conf, home)
    contenders = {_name(count): partial(mind_train, made.conf, home, f"train.workers={count}") for count in WORKERS}
    return _finding(first, interleaved(contenders, options.rounds))


def _name(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


def _parts(run: Run) -> dict[str, float]:
    """Seconds by part, in the order of time as far as it is known; and two readings from outside the program."""
    logged = {name.removeprefix(PREFIX): run.values(name)[0] for name in run.metrics if name.startswith(PREFIX)}
    order = ["imports", "ray", "workers", "data", "model", "first_step", "total"]
    known = [name for name in order if name in logged]
    parts = {name: logged[name] for name in [name for name in logged if name not in order] + known}
    times = [time for name, points in run.metrics.items() if name.startswith("train/") for _, time, _ in points]
    return parts | {"first report in MLflow": min(times) - run.started, "whole command": run.seconds}


def _finding(first: Run, found: dict[str, list[Run]]) -> Finding:
    figures: dict[str, Any] = {"first_start_seconds": first.seconds}
    spreads = {}
    for name, runs in found.items():
        parts = [_parts(run) for run in runs]
        spreads[name] = {part: spread([each[part] for each in parts]) for part in parts[0]}
        figures[name] = {part: values.figures() for part, values in spreads[name].items()}
    parts_of_all = list(spreads[_name(WORKERS[0])])
    rows = [[part, *(spreads[name][part].text(".2f") for name in found)] for part in parts_of_all]
    notes = [
        f"a small log (100,000 events); the first start in a new home, which makes MLflow's database, took "
        f"{first.seconds:.1f} s in all",
        "the first report in MLflow comes after 50 steps: an upper bound, seen from outside, of the start-up",
    ]
    if not any(name.startswith(PREFIX) for name in first.metrics):
        notes.append("this version of mind train logs no startup/ metrics: only what is seen from outside")
    return Finding(figures, [Sheet("Start-up of mind train, seconds", ["", *found], rows, notes)])

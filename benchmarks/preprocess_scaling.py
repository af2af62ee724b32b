"""Events/s of the passes with one CPU, two, and two nodes of one each; and what Ray Data's scheduling loop takes of it.

Part of benchmarks/preprocess.py
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.measure import Options, interleaved, ratio, spread
from benchmarks.preprocess_runs import NAME, make_log, preprocess
from benchmarks.preprocess_same import two_nodes
from benchmarks.report import Finding, Sheet
from pipelines.dataset.dataset import Dataset

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
SAID = re.compile(r"^\* (Scheduling|Total): ([0-9.]+)(us|ms|s) ", re.MULTILINE)


@dataclass(frozen=True)
class Passes:
    """seconds : of all passes, as Ray Data counts them.  scheduling : of them in its loop, on the driver.
    command : of the whole command."""

    seconds: float
    scheduling: float
    command: float


def run(options: Options) -> Finding:
    """The same log each time."""
    events = 200_000 if options.quick else 10_000_000
    log = make_log(options, events)
    ways: dict[str, Callable[[], Passes]] = {
        "1 CPU": partial(_alone, log, options.scratch / "one", 1),
        "2 CPUs": partial(_alone, log, options.scratch / "two", 2),
        "2 nodes of 1 CPU": partial(_cluster, log, options.scratch / "nodes"),
    }
    found = interleaved(ways, options.rounds)
    seconds = {name: spread([each.seconds for each in runs]) for name, runs in found.items()}
    rows, figures = [], {}
    for name, runs in found.items():
        loop = spread([each.scheduling for each in runs])
        command = spread([each.command for each in runs])
        faster = ratio(seconds["1 CPU"], seconds[name])
        rate = events / seconds[name].median
        rows.append(
            [
                name,
                seconds[name].text(".1f"),
                f"{rate:,.0f}",
                faster.text(".2f"),
                loop.text(".1f"),
                f"{loop.median / seconds[name].median:.0%}",
                command.text(".1f"),
            ]
        )
        figures[name] = {"events_per_second": rate, "seconds": seconds[name].figures(), "loop": loop.figures()}
    columns = ["", "passes, s", "events/s", "times 1 CPU", "scheduling loop, s", "of the passes", "whole command, s"]
    notes = ["passes and scheduling loop: as Ray Data's own statistics say (ray-data.txt of the dataset)"]
    return Finding(figures, [Sheet(f"Preprocessing {events:,} events", columns, rows, notes)], [])


def _alone(log: Path, home: Path, cpus: int) -> Passes:
    ran = preprocess(log, home, "--set", f"ray.num_cpus={cpus}")
    return _passes(home, ran.seconds)


def _cluster(log: Path, home: Path) -> Passes:
    shutil.rmtree(home, ignore_errors=True)
    started = time.perf_counter()
    two_nodes(log, home)
    return _passes(home, time.perf_counter() - started)


def _passes(home: Path, command: float) -> Passes:
    said = Dataset.open(home / "datasets" / NAME).layout.engine.read_text("utf-8")
    total = {"Scheduling": 0.0, "Total": 0.0}
    for name, value, unit in SAID.findall(said):
        total[name] += float(value) * UNITS[unit]
    return Passes(total["Total"], total["Scheduling"], command)

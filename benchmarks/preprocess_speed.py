"""Events/s and memory of `mind preprocess` and of a Polars script that does the same work.

Part of benchmarks/preprocess.py
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import REPOSITORY, Options, interleaved, ratio, spread
from benchmarks.preprocess_runs import Preprocessed, make_log, preprocess
from benchmarks.report import Finding, Sheet, Target
from benchmarks.watched import watch

OURS, POLARS = "mind preprocess", "plain Polars"
SCRIPT = REPOSITORY / "benchmarks" / "peers" / "polars_lists.py"
MILLION = 1_000_000


def run(options: Options) -> Finding:
    """All sizes; the larger ones beside Polars."""
    sizes = [MILLION // 10, MILLION // 5, MILLION // 2] if options.quick else [MILLION, 10 * MILLION, 50 * MILLION]
    rows, figures, found = [], {}, {}
    for size in sizes:
        log = make_log(options, size)
        contenders = {OURS: partial(preprocess, log, options.scratch / "speed"), POLARS: partial(_polars, log, options)}
        found[size] = runs = interleaved(contenders, options.rounds)
        seconds = {name: spread([each.seconds for each in runs[name]]) for name in runs}
        rate = ratio(seconds[POLARS], seconds[OURS])
        work = spread([each.work for each in runs[OURS]])
        peaks = {name: spread([each.peak_bytes / 2**30 for each in runs[name]]) for name in runs}
        cells = [seconds[OURS].text(".1f"), seconds[POLARS].text(".1f"), rate.text(".2f"), work.text(".1f")]
        cells += [f"{1e6 * work.median / size:.2f}", peaks[OURS].text(".2f"), peaks[POLARS].text(".2f")]
        rows.append([f"{size:,}", *cells])
        figures[str(size)] = {
            "seconds": {name: each.figures() for name, each in seconds.items()},
            "events_per_second": {name: size / each.median for name, each in seconds.items()},
            "times_polars": rate.figures(),
            "work_seconds": work.figures(),
            "peak_gib": {name: each.figures() for name, each in peaks.items()},
        }
    columns = ["events", "ours, s", "Polars, s", "ours / Polars (events/s)", "ours without start-up, s"]
    columns += ["µs an event", "ours, GiB at the peak", "Polars, GiB"]
    notes = [
        "whole commands, start-up of Python, Ray and MLflow included; without start-up: the passes alone",
        "memory: all processes of the command together, shared pages once, sampled five times a second",
    ]
    sheet = Sheet("Preprocessing a log in the order of time, two cores", columns, rows, notes)
    return Finding(figures, [sheet], _targets(sizes, found))


def _targets(sizes: list[int], found: dict[int, dict[str, list[Any]]]) -> list[Target]:
    _, middle, large = sizes

    def median(size: int, name: str, what: str) -> float:
        return spread([getattr(each, what) for each in found[size][name]]).median

    speed = median(large, POLARS, "seconds") / median(large, OURS, "seconds")
    memory = 1.5 * median(middle, OURS, "peak_bytes") / median(large, OURS, "peak_bytes")
    return [
        Target(f"events/s at {large:,}, ours / Polars", speed, 0.5),
        Target(f"1.5 x peak memory at {middle:,} / at {large:,}", memory, 1),
    ]


def _polars(log: Path, options: Options) -> Preprocessed:
    out = options.scratch / "polars"
    shutil.rmtree(out, ignore_errors=True)
    ran = watch([sys.executable, str(SCRIPT), str(log), str(out)])
    return Preprocessed(ran.seconds, ran.seconds, ran.peak_bytes, "")

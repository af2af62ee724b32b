"""Events/s of the passes with one CPU, two, and two nodes of one each; and what the driver of Ray Data takes of them.

Part of benchmarks/preprocess.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.measure import Options, interleaved, ratio, spread
from benchmarks.preprocess_runs import Preprocessed, make_log, on_two_nodes, preprocess
from benchmarks.report import Finding, Sheet

COLUMNS = ["", "passes, s", "events/s", "times 1 CPU", "driver, CPU s", "of the passes", "whole command, s"]


def run(options: Options) -> Finding:
    """The same log each time; and a log of nothing, for the driver's CPU time before its first pass."""
    events = 200_000 if options.quick else 10_000_000
    log, little = make_log(options, events), make_log(options, 1000)
    ways: dict[str, Callable[[], Preprocessed]] = {
        "1 CPU": partial(preprocess, log, options.scratch / "one", "--set", "ray.num_cpus=1"),
        "2 CPUs": partial(preprocess, log, options.scratch / "two", "--set", "ray.num_cpus=2"),
        "2 nodes of 1 CPU": partial(on_two_nodes, log, options.scratch / "nodes"),
    }
    idle = preprocess(little, options.scratch / "little").driver_cpu_s
    found = interleaved(ways, options.rounds)
    seconds = {name: spread([each.work for each in runs]) for name, runs in found.items()}
    rows, figures = [], {}
    for name, runs in found.items():
        driver = spread([each.driver_cpu_s - idle for each in runs])
        rate = events / seconds[name].median
        local = "nodes" not in name  # `idle` is of a command that starts Ray itself
        rows.append(
            [
                name,
                seconds[name].text(".1f"),
                f"{rate:,.0f}",
                ratio(seconds["1 CPU"], seconds[name]).text(".2f"),
                driver.text(".1f") if local else "",
                f"{driver.median / seconds[name].median:.0%}" if local else "",
                spread([each.seconds for each in runs]).text(".1f"),
            ]
        )
        figures[name] = {"events_per_second": rate, "seconds": seconds[name].figures(), "driver": driver.figures()}
    notes = [
        f"driver: CPU seconds of the command's own process, less the {idle:.1f} that a log of 1,000 events takes: Ray "
        "Data's scheduling loop, and what the driver itself sums up (counts of items, the vocabulary)"
    ]
    return Finding(figures, [Sheet(f"Preprocessing {events:,} events", COLUMNS, rows, notes)], [])

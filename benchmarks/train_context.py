"""What reading the order costs: a transformer before the routing, beside bags, and beside RecTools' SASRec.

A generated log of MovieLens-1M's size (3,700 items, 165 events a user), d = 64, L = 200, two threads; every contender
is a process of its own, one after the other, round by round. Part of benchmarks/train.py

    python -m benchmarks.train_context CONF DATASET PRESET --steps 20     one of ours, as JSON
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cli_runs import generated
from benchmarks.dataset_loop import load, samples_per_second
from benchmarks.measure import Options, interleaved, json_of, peak_bytes, ratio, spread
from benchmarks.peers.export import export
from benchmarks.peers.install import rectools_python
from benchmarks.report import Finding, Sheet
from pipelines.config.load import load_config
from pipelines.dataset.dataset import Dataset

EVENTS, USERS, ITEMS = 1_000_000, 6_040, 4_500  # of which about 3,700 occur
LENGTH, DIM, THREADS = 200, 64, 2
OURS = {
    "default (K = 4, bags)": "default",
    "context (K = 4, transformer)": "context",
    "sasrec (K = 1, transformer)": "sasrec",
}
SASREC = "RecTools' SASRec"


def run(options: Options) -> Finding:
    """Make the log, then measure all in turn."""
    sizes = (60_000, 400, 2_000) if options.quick else (EVENTS, USERS, ITEMS)
    made = generated(options.cache, "bench-context", *sizes, f"model: {{max_history: {LENGTH}, dim: {DIM}}}\n")
    python = rectools_python(options)
    arrays = export(
        load(Dataset.open(made.dataset)), options.scratch / "context.npz", torch.arange(0), with_users=False
    )
    steps = 4 if options.quick else 60
    ours = [sys.executable, "-m", "benchmarks.train_context", str(made.conf), str(made.dataset)]
    words = ["--length", str(LENGTH), "--dim", str(DIM), "--threads", str(THREADS), "--steps", str(max(2, steps // 4))]
    peer = [str(python), "-m", "benchmarks.peers.sasrec_speed", str(arrays), *words]
    contenders = {name: partial(json_of, [*ours, preset, "--steps", str(steps)]) for name, preset in OURS.items()}
    return _finding(interleaved(contenders | {SASREC: partial(json_of, peer)}, options.rounds))


def _finding(found: dict[str, list[dict[str, Any]]]) -> Finding:
    rates = {name: spread([statistics.median(each["rates"]) for each in runs]) for name, runs in found.items()}
    peaks = {name: spread([each["peak_bytes"] / 2**30 for each in runs]) for name, runs in found.items()}
    bags = next(iter(OURS))
    rows = [
        [name, rates[name].text(), *(ratio(rates[name], rates[other]).text(".2f") for other in (bags, SASREC)),
         f"{EVENTS / rates[name].median:,.0f}", peaks[name].text(".2f")]
        for name in found
    ]  # fmt: skip
    notes = [
        "Targets that are learned from: labels of ours; of RecTools' the positions of a session that are no padding.",
        "Memory is that of the process at its peak; an epoch learns from every event once.",
    ]
    columns = ["contender", "targets/s", "/ bags", "/ SASRec", "an epoch of 1 M targets, s", "memory, GiB"]
    figures = {name: {"targets_per_second": rates[name].figures(), "peak_gib": peaks[name].figures()} for name in found}
    title = f"What reading the order costs: {ITEMS:,} items asked for, L = {LENGTH}, d = {DIM}, {THREADS} threads"
    return Finding(figures, [Sheet(title, columns, rows, notes)])


def main() -> None:
    """Print one of ours."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("conf", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("preset")
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    config = load_config(arguments.conf, preset=arguments.preset)
    data = load(Dataset.open(arguments.dataset), config)
    rates = samples_per_second(config, data, "rows", arguments.steps)
    print(json.dumps({"rates": rates, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()

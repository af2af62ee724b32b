"""What training costs, beside its peers: one command for every figure of docs that is about speed.

    python -m benchmarks.train [--only peers,tables,workers,context,quality,startup,gpu] [--quick] [--out FILE]

Contenders are measured one after the other, round by round, on the same two cores; a figure is a median with the lowest
and highest of its rounds, a ratio is taken round by round. Leave the machine alone while it runs: about an hour in
all. What it makes is kept in ~/.cache/mind-bench: the peers' environment and a generated log.
"""

from __future__ import annotations

from benchmarks.sections import run_sections

SECTIONS = {
    "peers": "benchmarks.train_peers",
    "tables": "benchmarks.train_tables",
    "workers": "benchmarks.train_workers",
    "context": "benchmarks.train_context",
    "quality": "benchmarks.train_quality",
    "startup": "benchmarks.train_startup",
    "gpu": "benchmarks.train_floor",
}

if __name__ == "__main__":
    run_sections("What training costs, beside its peers.", SECTIONS, "train.json")

"""What a tuning campaign costs beside its trainings: one command for the figures of docs/tuning.md.

    python -m benchmarks.tune [--only overhead,memory,asha] [--quick] [--rounds N] [--out FILE]

Whole commands, one after the other, on the same two cores. Leave the machine alone while it runs: overhead and memory
about 25 minutes, asha (two campaigns over real data, kept in ~/.cache/mind-bench) about an hour.
"""

from __future__ import annotations

from benchmarks.sections import run_sections

SECTIONS = {
    "overhead": "benchmarks.tune_overhead",
    "memory": "benchmarks.tune_memory",
    "asha": "benchmarks.tune_asha",
}

if __name__ == "__main__":
    run_sections("What a tuning campaign costs beside its trainings.", SECTIONS, "tune.json")

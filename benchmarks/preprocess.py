"""What preprocessing costs, beside a plain Polars script: one command for every figure of docs/preprocessing.md.

    python -m benchmarks.preprocess [--only speed,scaling,same,append] [--quick] [--rounds N] [--out FILE]

Contenders run as whole commands, one after the other, round by round, on the same two cores. Leave the machine alone
while it runs: about ten minutes. The generated logs are kept in ~/.cache/mind-bench.
"""

from __future__ import annotations

from benchmarks.sections import run_sections

SECTIONS = {
    "speed": "benchmarks.preprocess_speed",
    "scaling": "benchmarks.preprocess_scaling",
    "same": "benchmarks.preprocess_same",
    "append": "benchmarks.preprocess_append",
}

if __name__ == "__main__":
    run_sections("What preprocessing costs, beside a plain Polars script.", SECTIONS, "preprocess.json")

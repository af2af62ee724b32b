"""What retrieval gives and costs: exact lists, one user and many, an index; one command for its table.

    python -m benchmarks.retrieve [--only lists,sizes,hnsw] [--quick] [--rounds N] [--cores N] [--out FILE]

lists trains a model of Beauty and of ML-1M for an epoch, once (kept in ~/.cache/mind-bench): about 10 minutes. sizes
takes about 5 minutes and 4 GB; hnsw takes about 15 minutes, most of them to build the index. Leave the machine alone.
"""

from __future__ import annotations

from benchmarks.sections import run_sections

SECTIONS = {
    "lists": "benchmarks.retrieve_lists",
    "sizes": "benchmarks.retrieve_sizes",
    "hnsw": "benchmarks.retrieve_hnsw",
}

if __name__ == "__main__":
    run_sections("What retrieval gives and costs.", SECTIONS, "retrieve.json")

"""What training costs, beside its peers: one command for every figure of docs that is about speed.

    python -m benchmarks.train [--only peers,tables,workers,quality,startup,gpu] [--quick] [--out FILE]

Contenders are measured one after the other, round by round, on the same two cores; a figure is a median with the lowest
and highest of its rounds, a ratio is taken round by round. Leave the machine alone while it runs: about an hour in
all. What it makes is kept in ~/.cache/mind-bench: the peers' environment and a generated log.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.measure import CACHE, Options, machine, say, use_cores
from benchmarks.report import Finding, Target, show, show_finding, targets_sheet

SECTIONS = {  # name -> module with a function run(options) -> Finding; imported when its turn comes
    "peers": "benchmarks.train_peers",
    "tables": "benchmarks.train_tables",
    "workers": "benchmarks.train_workers",
    "quality": "benchmarks.train_quality",
    "startup": "benchmarks.train_startup",
    "gpu": "benchmarks.train_floor",
}


def main() -> None:
    """Run the sections, print their tables, and write the JSON file anew after each."""
    arguments = _arguments()
    use_cores(arguments.cores)
    record: dict[str, Any] = {"machine": machine(), "quick": arguments.quick}
    targets: list[Target] = []
    with tempfile.TemporaryDirectory(prefix="mind-bench-") as scratch:
        options = Options(
            scratch=Path(scratch),
            cache=arguments.cache,
            quick=arguments.quick,
            rounds=arguments.rounds or (1 if arguments.quick else 3),
            cap=arguments.cap or (20 if arguments.quick else 300),
            torch_index=arguments.torch_index,
        )
        for name in arguments.only:
            say(f"{name} ...")
            started = time.perf_counter()
            finding: Finding = import_module(SECTIONS[name]).run(options)
            record[name] = finding.figures | {"seconds": time.perf_counter() - started}
            targets += finding.targets
            show_finding(finding)
            _write(arguments.out, record, targets)
    if targets:
        show(targets_sheet(targets))
    print(f"written to {arguments.out}")


def _write(path: Path, record: dict[str, Any], targets: list[Target]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    reached = [vars(target) | {"met": target.met} for target in targets]
    aside.write_text(json.dumps(record | {"targets": reached}, indent=1) + "\n")
    aside.rename(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", type=_sections, default=list(SECTIONS), metavar="A,B", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few minutes; its figures mean nothing")
    parser.add_argument("--rounds", type=int, help="of A B A B; default 3")
    parser.add_argument("--cap", type=float, help="seconds of training per contender and data set (quality); 300")
    parser.add_argument("--cores", type=int, default=2, help="that everything runs on; default 2")
    parser.add_argument("--out", type=Path, default=CACHE / "train.json", help="JSON file; default %(default)s")
    parser.add_argument("--cache", type=Path, default=CACHE, help="default %(default)s")
    parser.add_argument("--torch-index", metavar="URL", help="where pip finds torch for the peers' environment")
    return parser.parse_args()


def _sections(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{name}: must be one of {', '.join(SECTIONS)}")
    return names


if __name__ == "__main__":
    main()

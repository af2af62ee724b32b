"""The command of a benchmark that consists of sections: what it takes, runs, prints and keeps."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.measure import CACHE, Options, machine, say, use_cores
from benchmarks.report import Finding, Target, show, show_finding, targets_sheet


def run_sections(purpose: str, sections: Mapping[str, str], out: str) -> None:
    """Run the sections named on the command line, print their tables, and write the JSON file anew after each.

    Parameters
    ----------
    sections : name -> module with a function run(options) -> Finding; imported when its turn comes.
    out : default name of the JSON file, in the cache.
    """
    arguments = _arguments(purpose, sections, out)
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
            finding: Finding = import_module(sections[name]).run(options)
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


def _arguments(purpose: str, sections: Mapping[str, str], out: str) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in sections:
                raise argparse.ArgumentTypeError(f"{name}: must be one of {', '.join(sections)}")
        return text.split(",")

    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--only", type=names, default=list(sections), metavar="A,B", help=", ".join(sections))
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few minutes; its figures mean nothing")
    parser.add_argument("--rounds", type=int, help="of A B A B; default 3")
    parser.add_argument("--cap", type=float, help="seconds of training per contender and data set (quality); 300")
    parser.add_argument("--cores", type=int, default=2, help="that everything runs on; default 2")
    parser.add_argument("--out", type=Path, default=CACHE / out, help="JSON file; default %(default)s")
    parser.add_argument("--cache", type=Path, default=CACHE, help="default %(default)s")
    parser.add_argument("--torch-index", metavar="URL", help="where pip finds torch for the peers' environment")
    return parser.parse_args()

"""Results that are kept: each contestant's file under what it follows from, so that a killed run goes on."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import REPOSITORY
from benchmarks.peers.lists import DEPTH

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Failed(Exception):
    """A contestant that ended without its file; the text is the last line that it said."""


def result_path(
    root: Path, dataset: str, fingerprint: str, contestant: str, settings: dict[str, Any], code: str
) -> Path:
    """Name the file of a result: by data set, contestant, and a hash of the rest.

    settings : as `Contestant.settings`, the seed among them; how many threads worked does not count.
    code : of `code_digest`, and whatever else counts.
    """
    counted = {name: value for name, value in settings.items() if name != "threads"}
    key = json.dumps([fingerprint, contestant, counted, code, DEPTH], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return root / f"{dataset}-{fingerprint[:12]}" / f"{contestant}-seed{settings['seed']}-{digest}.npz"


def code_digest(patterns: tuple[str, ...], root: Path = REPOSITORY) -> str:
    """Hash what the files compute: neither comments, docstrings nor layout count."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in patterns for file in root.glob(pattern)}):
        digest.update(str(file.relative_to(root)).encode())
        digest.update(_without_docstrings(file.read_text("utf-8")).encode())
    return digest.hexdigest()[:12]


def _without_docstrings(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def run_contestant(command: list[str], out: Path, threads: int) -> float:
    """Run a contestant, which writes `out`; what it says goes to a log beside it. Seconds that the process took.

    Raises
    ------
    Failed
        If it ended without that file.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_suffix(".log")
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    started = time.perf_counter()
    with log.open("w") as said:
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=said, stderr=subprocess.STDOUT)
    if done.returncode or not out.is_file():
        lines = log.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "it said nothing"
        killed = f"killed by signal {-done.returncode}: " if done.returncode < 0 else ""
        raise Failed(f"{killed}{last} ({log})")
    log.unlink()
    return time.perf_counter() - started

"""Run a command and watch the memory of its whole process tree. Linux only."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PERIOD_S = 0.2


@dataclass(frozen=True)
class Watched:
    """seconds : of the whole command.  peak_bytes : the most that its processes held together, a page that several
    share counted once (proportional set size).  said : its standard error."""

    seconds: float
    peak_bytes: int
    said: str


def watch(command: Sequence[str], environment: dict[str, str] | None = None) -> Watched:
    """Run it to its end.

    Raises
    ------
    SystemExit
        If it fails, with the last line it said.
    """
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)
        while process.poll() is None:
            peak = max(peak, sum(map(_bytes, _tree(process.pid))))
            time.sleep(PERIOD_S)
        seconds = time.perf_counter() - started
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:3])}: {(text.strip() or str(process.returncode)).splitlines()[-1]}")
    return Watched(seconds, peak, text)


def _tree(root: int) -> list[int]:
    """The process and all below it."""
    children = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            children[int(stat.rpartition(")")[2].split()[1])].append(int(entry))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children[found[-1]]
    return found


def _bytes(process: int) -> int:
    try:
        lines = Path("/proc", str(process), "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)

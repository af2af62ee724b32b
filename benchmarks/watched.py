"""Run a command and watch the memory of its whole process tree. Linux only."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

PERIOD_S = 0.2


@dataclass(frozen=True)
class Watched:
    """seconds : of the whole command.  peak_bytes : the most that its processes held together, a page that several
    share counted once (proportional set size).  driver_cpu_s : CPU seconds of the command's own process, without those
    that it started.  said : its standard error."""

    seconds: float
    peak_bytes: int
    driver_cpu_s: float
    said: str


def watch(command: Sequence[str], environment: dict[str, str] | None = None) -> Watched:
    """Run it to its end.

    Raises
    ------
    SystemExit
        If it fails, with the last line it said.
    """
    started, peak, cpu = time.perf_counter(), 0, 0.0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)
        while process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            with suppress(psutil.NoSuchProcess):
                cpu = max(cpu, sum(psutil.Process(process.pid).cpu_times()[:2]))
            time.sleep(PERIOD_S)
        seconds = time.perf_counter() - started
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:3])}: {(text.strip() or str(process.returncode)).splitlines()[-1]}")
    return Watched(seconds, peak, cpu, text)


def tree_bytes(root: int) -> int:
    """Add up the bytes of the process and all below it."""
    held = 0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(root)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                held += each.memory_full_info().pss
    return held

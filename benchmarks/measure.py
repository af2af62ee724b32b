"""How the training benchmark measures: rounds of A B A B, medians with their spread, memory and the machine.

Standard library only, so that `benchmarks/train_tables.py` runs on a machine that has nothing but torch.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
REPOSITORY = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mind-bench"


@dataclass(frozen=True)
class Options:
    """What a section may be told.

    quick : sizes for a smoke run; its figures mean nothing.  rounds : of A B A B.  cap : seconds of training per
    contender and data set (quality).  cache : what is kept between runs: the peers' environment, generated data.
    scratch : a folder for this run alone.  torch_index : where pip finds torch for the peers; None: its default.
    """

    scratch: Path
    cache: Path = CACHE
    quick: bool = False
    rounds: int = 3
    cap: float = 300.0
    torch_index: str | None = None


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, form: str = ",.0f") -> str:
        """Median (lowest to highest), e.g. "1,280 (1,240-1,310)"."""
        low, high = min(self.values), max(self.values)
        if len(self.values) == 1 or low == high:
            return f"{self.median:{form}}"
        return f"{self.median:{form}} ({low:{form}}\N{EN DASH}{high:{form}})"

    def figures(self) -> dict[str, Any]:
        """For the JSON file."""
        return {"median": self.median, "low": min(self.values), "high": max(self.values), "values": list(self.values)}


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(tuple(float(value) for value in values))


def ratio(ours: Spread, theirs: Spread) -> Spread:
    """Round by round: what was measured next to each other is divided by each other."""
    return Spread(tuple(a / b for a, b in zip(ours.values, theirs.values, strict=True)))


def interleaved(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Let every contender run once per round, in turn; by name, what each returned."""
    found: dict[str, list[T]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            started = time.perf_counter()
            found[name].append(run())
            say(f"  round {number + 1}/{rounds}: {name}, {time.perf_counter() - started:.1f} s")
    return found


def json_of(command: Sequence[str]) -> dict[str, Any]:
    """Run a command in the repository; what the last line of its output says, as JSON.

    Raises
    ------
    SystemExit
        With the command's first words and the last line it said.
    """
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()
        raise SystemExit(f"{' '.join(command[:3])}: {said[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def say(text: str) -> None:
    """Progress, to standard error: standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def resident_bytes() -> int:
    """Memory that this process holds now (Linux; elsewhere the highest so far)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_bytes()


def peak_bytes() -> int:
    """The most memory that this process has ever held."""
    if high := _kibibytes("VmHWM", Path("/proc/self/status")):
        return 1024 * high
    import resource  # not on Windows; and on Linux its figure includes the process that started this one

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes() -> int:
    """Memory that could be taken now without swapping; 0 where the system does not say."""
    return 1024 * _kibibytes("MemAvailable")


def machine() -> dict[str, Any]:
    """Where and when a figure was measured."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": _cpu_model(),
        "cores": len(usable_cores()),
        "memory_gib": round(_kibibytes("MemTotal") / 2**20, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": _commit(),
        "load_average": list(os.getloadavg()),
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
    }


def usable_cores() -> list[int]:
    """Ids of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def use_cores(count: int) -> None:
    """Confine this process and its children to the first `count` cores; call it before torch counts them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, usable_cores()[:count])


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _kibibytes(field: str, info: Path = Path("/proc/meminfo")) -> int:
    lines = info.read_text().splitlines() if info.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


def _commit() -> str | None:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", REPOSITORY, *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return (commit + ("-dirty" if git("status", "--porcelain", "-uno") else "")) or None
    except OSError:  # no git on this machine
        return None

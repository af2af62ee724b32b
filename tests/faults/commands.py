"""`mind` as a process that can be watched and broken, and whatever it leaves behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[2]
MARK = "MIND_FAULT"  # in the environment of a command and of all that it starts
SURROUNDINGS = {
    "PYTHONPATH": str(REPOSITORY),
    "RAY_worker_niceness": "0",  # Ray's own 15 would starve its workers on a machine with other work
}
LIMIT_S = 900.0  # of a command; a busy machine takes long
GRACE_S = 120.0  # Ray takes a minute to notice that its driver is gone
TORN = (".writing-", ".partial-", ".work-", "lock", ".probe-")  # in names of files that may not outlive a command


class Command:
    """One run of `mind`; what it says goes to a file.

    prefix : words before it, a program that runs it.
    """

    def __init__(
        self, arguments: list[str], log: Path, environment: dict[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.log = log
        self.began = time.monotonic()
        with log.open("w") as said:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "jobs.cli", *arguments],
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **SURROUNDINGS, MARK: self.mark, **(environment or {})},
                start_new_session=True,
                preexec_fn=_heeds_ctrl_c,
            )

    def said(self) -> str:
        """Return all that it has said so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, line: str) -> bool:
        """Wait until it says `line`; False if it ends without."""
        while line not in self.said():
            if self.process.poll() is not None:
                return line in self.said()
            assert time.monotonic() - self.began < LIMIT_S, self.said()
            time.sleep(0.01)
        return True

    def finish(self) -> int:
        """Wait for its end; the exit code."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.end_all()
            raise AssertionError(f"still running after {LIMIT_S:.0f} s: {self.said()}") from None

    @property
    def seconds(self) -> float:
        """How long ago it began."""
        return time.monotonic() - self.began

    def tree(self) -> list[psutil.Process]:
        """Find every process below it, or that carries its mark, whoever its parent is by now.

        A long title that a process gives itself lies where its environment was, mark and all.
        """
        found = []
        with suppress(psutil.Error):
            found += psutil.Process(self.process.pid).children(recursive=True)
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process not in found and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return [process for process in found if _is_running(process)]

    def worker(self, wanted: Callable[[str], bool]) -> psutil.Process | None:
        """Find one of its Ray workers by its title, ``ray::<what it runs>``."""
        for process in self.tree():
            with suppress(psutil.Error, IndexError):
                title = process.cmdline()[0]
                if title.startswith("ray::") and wanted(title.removeprefix("ray::")):
                    return process
        return None

    def left_running(self) -> list[str]:
        """Name the processes that are there some time after its end."""
        until = time.monotonic() + GRACE_S
        while (left := self.tree()) and time.monotonic() < until:
            time.sleep(0.5)
        names = []
        for process in left:
            with suppress(psutil.Error):
                names.append(f"process {process.name()}")
        return names

    def end_all(self) -> None:
        """End what is left of it."""
        for process in self.tree():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _heeds_ctrl_c() -> None:
    """Undo what a shell does to jobs in the background: they ignore SIGINT, and so would what they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def left_in(home: Path) -> list[str]:
    """Name what no finished command may leave in a home: torn files, locks, unsent records, runs without an end."""
    torn = [
        str(path.relative_to(home))
        for path in home.rglob("*")
        if any(part in path.name for part in TORN) and "mlartifacts" not in path.parts
    ]
    unsent = [f"unsent {path.name}" for path in home.glob("unsent/*/*")]
    return torn + unsent + [f"run {name} RUNNING" for name in running(home)]


def running(home: Path) -> list[str]:
    """Name the MLflow runs of a home that have no end."""
    if not (home / "mlflow.db").is_file():
        return []
    with sqlite3.connect(f"file:{home / 'mlflow.db'}?mode=ro", uri=True) as store:
        return [name for (name,) in store.execute("SELECT name FROM runs WHERE status = 'RUNNING'")]

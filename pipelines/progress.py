"""One look for every long step: a rich bar with an ETA on a terminal, a line at start and end in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)  # progress and remarks
output = Console()  # results: what a user may pipe on


class Advance(Protocol):
    def __call__(self, steps: int, total: int | None = None) -> None:
        """Count `steps` more as done; `total` corrects how many are expected."""


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Advance]:
    """Yield an `Advance`; `total` steps are expected (None: unknown yet).

    >>> with progress("Partitioning events", total=8) as advance:
    ...     advance(8)
    """
    if not console.is_terminal:
        started = time.perf_counter()
        console.print(f"{description} ...")
        yield lambda steps, total=None: None
        console.print(f"{description} done in {time.perf_counter() - started:.1f} s")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps, total=None: bar.update(task, advance=steps, total=total)


def duration(seconds: float) -> str:
    """Write seconds as ``2.5 hours``."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"

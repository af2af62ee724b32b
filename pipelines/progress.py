"""One look for every long step: a rich bar with an ETA on a terminal, a bar in the cell of a notebook; in a log file a
line at start and end, and one a minute in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipelines.notebook import NotebookBar

WIDE = 10_000  # letters of a line in a pipe or a file: nothing is cut there, and no line is broken


class _Console(Console):
    """As wide as the terminal; where there is none, as wide as need be."""

    @property
    def size(self) -> ConsoleDimensions:
        if self.is_terminal or self.is_jupyter:
            return super().size
        return ConsoleDimensions(WIDE, 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        Console.size.fset(self, new_size)  # type: ignore[attr-defined]


console = _Console(stderr=True)  # progress and remarks
output = _Console()  # results: what a user may pipe on


LINE_EVERY_S = 60.0  # in a log file
SPEED_OVER_S = 600.0  # what the ETA of a bar goes by: steps may be reported once in half a minute


class Advance(Protocol):
    def __call__(self, steps: int, total: int | None = None, what: str | None = None) -> None:
        """Count `steps` more as done; `total` corrects how many are expected, `what` the description."""


class _Lines:
    """Progress in a log file.

    clock : seconds from any start, for tests.
    """

    def __init__(self, description: str, total: int | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.description, self.total, self.clock, self.done = description, total, clock, 0
        self.started = self.said = clock()

    def __call__(self, steps: int, total: int | None = None, what: str | None = None) -> None:
        self.done += steps
        self.total, self.description = total or self.total, what or self.description
        if (now := self.clock()) - self.said >= LINE_EVERY_S:
            self.said = now
            console.print(self.line(now - self.started))

    def line(self, seconds: float) -> str:
        """Say how much is done after so many seconds, and how long the rest takes at that rate."""
        if not self.total or not self.done:
            return f"{self.description} ... {self.done:,} done, {duration(seconds)}"
        rest = seconds * max(0, self.total - self.done) / self.done
        share = self.done / self.total
        return f"{self.description} ... {self.done:,} of {self.total:,} ({share:.0%}), about {duration(rest)} left"


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Advance]:
    """Yield an `Advance`; `total` steps are expected (None: unknown yet).

    >>> with progress("Partitioning events", total=8) as advance:
    ...     advance(8)
    """
    if console.quiet:
        yield lambda steps, total=None, what=None: None
        return
    if console.is_jupyter:
        cell = NotebookBar(description, total)
        try:
            yield cell
        except BaseException:
            cell.finish(failed=True)
            raise
        cell.finish()
        return
    if not console.is_terminal:
        lines = _Lines(description, total)
        console.print(f"{description} ...")
        yield lines
        console.print(f"{lines.description} done in {lines.clock() - lines.started:.1f} s")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=SPEED_OVER_S) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps, total=None, what=None: bar.update(task, advance=steps, total=total, description=what)


def duration(seconds: float) -> str:
    """Write seconds as ``2.5 hours``."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"

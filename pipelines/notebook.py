"""A bar in a notebook's cell that is drawn again as it goes on, by IPython alone: no widgets to install."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from typing import Any

PAUSE_S = 0.2  # between two drawings


class NotebookBar:
    """Progress of one step.

    show : draws a MIME bundle and returns what can draw it anew; as IPython's `display` does, for tests.
    clock : seconds from any start.
    """

    def __init__(
        self,
        description: str,
        total: int | None,
        show: Callable[[dict[str, str]], Callable[[dict[str, str]], None]] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.description, self.total, self.done, self.clock = description, total, 0, clock
        self.started = self.drawn = clock()
        self._draw = (show or _display)(self.bundle(""))

    def __call__(self, steps: int, total: int | None = None, what: str | None = None) -> None:
        self.done += steps
        self.total, self.description = total or self.total, what or self.description
        if (now := self.clock()) - self.drawn >= PAUSE_S:
            self.drawn = now
            self._draw(self.bundle(self._rest(now - self.started)))

    def finish(self, failed: bool = False) -> None:
        """Draw the end: how long it took."""
        seconds = self.clock() - self.started
        if not failed and self.total is not None:
            self.done = self.total
        self._draw(self.bundle(f"{'stopped after' if failed else 'done in'} {seconds:.1f} s"))

    def bundle(self, told: str) -> dict[str, str]:
        """Write the bar as HTML and as text."""
        count = f"{self.done:,} of {self.total:,}" if self.total else f"{self.done:,}" if self.done else ""
        ended = told.startswith("done in")
        bar = f'<progress value="{self.done}" max="{self.total}"></progress>' if self.total else (
            '<progress value="1" max="1"></progress>' if ended else "<progress></progress>")  # fmt: skip
        words = ", ".join(each for each in (count, told) if each)
        return {
            "text/html": f"<div>{bar} {escape(self.description)} <small>{words}</small></div>",
            "text/plain": f"{self.description} {words}".rstrip(),
        }

    def _rest(self, seconds: float) -> str:
        if not self.total or not self.done:
            return f"{seconds:.0f} s"
        return f"about {seconds * max(0, self.total - self.done) / self.done:.0f} s left"


def _display(bundle: dict[str, str]) -> Callable[[dict[str, str]], None]:
    """Show a bundle in the cell; what is returned draws another in its place."""
    from IPython.display import display

    handle: Any = display(bundle, raw=True, display_id=True)
    return lambda changed: handle.update(changed, raw=True)

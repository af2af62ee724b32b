"""A bar in a notebook's cell: drawn once, then again in its place, without widgets."""

from typing import Any

import pytest

from pipelines import progress as module
from pipelines.notebook import NotebookBar
from pipelines.progress import progress


class Cell:
    def __init__(self) -> None:
        self.drawn: list[dict[str, str]] = []
        self.now = 0.0

    def show(self, bundle: dict[str, str]) -> Any:
        self.drawn.append(bundle)
        return self.drawn.append

    @property
    def last(self) -> str:
        return self.drawn[-1]["text/plain"]


def test_a_bar_says_how_far_it_is_and_how_long_the_rest_takes() -> None:
    cell = Cell()
    bar = NotebookBar("Ranking <users>", 1000, cell.show, lambda: cell.now)
    assert cell.last == "Ranking <users> 0 of 1,000"
    assert "&lt;users&gt;" in cell.drawn[-1]["text/html"]
    cell.now = 10.0
    bar(250)
    assert cell.last == "Ranking <users> 250 of 1,000, about 30 s left"
    assert '<progress value="250" max="1000">' in cell.drawn[-1]["text/html"]
    bar(1)  # at once: not drawn
    assert len(cell.drawn) == 2
    cell.now = 40.0
    bar.finish()
    assert cell.last == "Ranking <users> 1,000 of 1,000, done in 40.0 s"


def test_a_step_of_unknown_length_and_one_that_fails() -> None:
    cell = Cell()
    bar = NotebookBar("Fitting", None, cell.show, lambda: cell.now)
    assert cell.last == "Fitting"
    cell.now = 3.0
    bar(0, total=8, what="Training")
    assert cell.last == "Training 0 of 8, 3 s"
    bar.finish(failed=True)
    assert cell.last == "Training 0 of 8, stopped after 3.0 s"


def test_a_step_takes_the_bar_where_there_is_a_notebook_and_none_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell()
    monkeypatch.setattr(module.console, "is_jupyter", True)
    monkeypatch.setattr(module, "NotebookBar", lambda what, total: NotebookBar(what, total, cell.show))
    with progress("Sorting", 2) as advance:
        advance(2)
    assert cell.last.startswith("Sorting 2 of 2, done in")
    with pytest.raises(KeyError), progress("Sorting", 2):
        raise KeyError
    assert "stopped after" in cell.last
    drawn = len(cell.drawn)
    monkeypatch.setattr(module.console, "quiet", True)
    with progress("Sorting", 2) as advance:
        advance(1)
    assert len(cell.drawn) == drawn

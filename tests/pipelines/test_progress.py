"""What a long step writes into a log file."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from pipelines import progress as module
from pipelines.progress import LINE_EVERY_S, _Lines, progress


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_file_gets_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    advance = _Lines("Training", None, clock)
    for _ in range(12):  # three minutes
        clock.now += LINE_EVERY_S / 4
        advance(10, 480)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Training ... 40 of 480 (8%), about 11.0 minutes left",
        "Training ... 80 of 480 (17%), about 10.0 minutes left",
        "Training ... 120 of 480 (25%), about 9.0 minutes left",
    ]


def test_without_a_total_only_what_is_done_is_said() -> None:
    assert _Lines("Reading", None, Clock()).line(90.0) == "Reading ... 0 done, 1.5 minutes"


def test_a_step_that_is_done_early_does_not_promise_more() -> None:
    lines = _Lines("Reading", 5, Clock())
    lines(7)
    assert lines.line(10.0).endswith("about 0.0 seconds left")


def test_a_short_step_begins_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Starting workers", None) as advance:
        advance(3, 3, "Training, 9 samples/s")
    first, last = capsys.readouterr().err.splitlines()
    assert first == "Starting workers ..."
    assert last.startswith("Training, 9 samples/s done in")


def test_in_a_pipe_no_cell_is_cut_and_no_line_broken() -> None:
    pipe = io.StringIO()
    console = module._Console(file=pipe)
    table = Table("score", "title")
    table.add_row("0.6123456", "x" * 300)
    console.print(table)
    console.print("word " * 100)
    assert "0.6123456" in pipe.getvalue()
    assert "x" * 300 in pipe.getvalue()
    assert max(line.count("word") for line in pipe.getvalue().splitlines()) == 100
    assert module._Console(file=io.StringIO(), force_terminal=True, width=80).width == 80

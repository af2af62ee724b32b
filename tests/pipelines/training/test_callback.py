"""What becomes of the workers' reports: each step in MLflow once, and what is lost is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.training.callback import ReportCallback, progress_board


class Store:
    """A tracker whose server is down while told so."""

    def __init__(self) -> None:
        self.down, self.lost, self.steps = False, 0, list[int]()

    def post_metrics(self, metrics: dict[str, float], step: int) -> None:
        if self.down:
            self.lost += 1
        else:
            self.steps.append(step)


def report(callback: ReportCallback, step: int) -> None:
    metrics: dict[str, Any] = {"step": step, "total_steps": 9, "train/loss": 1.0}
    callback.after_report(run_context=None, metrics=[metrics, metrics], checkpoint=None)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return tmp_path / "reports.jsonl"


def test_a_step_that_a_restart_repeats_is_logged_once(board: Path) -> None:
    store = Store()
    callback = ReportCallback(store, board, logged_until=2)  # type: ignore[arg-type]
    for step in (1, 2, 3, 4, 3, 4, 5):
        report(callback, step)
    assert store.steps == [3, 4, 5]


def test_a_step_that_was_lost_is_logged_when_a_restart_repeats_it(board: Path) -> None:
    store = Store()
    callback = ReportCallback(store, board, logged_until=-1)  # type: ignore[arg-type]
    for step, store.down in ((1, False), (2, True), (3, False), (1, False), (2, False), (3, False), (2, False)):
        report(callback, step)
    assert store.steps == [1, 3, 2]


def test_the_driver_says_how_many_reports_were_lost(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store()
    callback = ReportCallback(store, board, logged_until=-1)  # type: ignore[arg-type]
    with progress_board(board, "recall@20"):
        for step, store.down in ((1, False), (2, True), (3, True), (4, False)):
            report(callback, step)
    assert "did not take 2 of" in capsys.readouterr().err
    assert [json.loads(line).get("lost") for line in board.read_text().splitlines()] == [None, None, 1, None, 2, None]


def test_nothing_is_said_when_nothing_was_lost(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = ReportCallback(Store(), board, logged_until=-1)  # type: ignore[arg-type]
    with progress_board(board, "recall@20"):
        report(callback, 1)
    assert "MLflow" not in capsys.readouterr().err

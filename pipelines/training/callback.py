"""Ray Train's reports, as they are committed: to MLflow, and to the progress bar of the driver.

Runs in Ray's controller, on the driver's node. An exception here would end the run, so none gets out.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.train import Checkpoint, UserCallback

from pipelines.progress import Advance, console, progress
from pipelines.tracking.notes import learning_curve
from pipelines.tracking.run import Tracker
from pipelines.training.gauges import TrainGauges
from pipelines.training.snapshot import keep_record

logger = logging.getLogger(__name__)
POLL_S = 0.2
DIVERGED = "diverged"  # in a run's last report: why it has stopped
TAKEN_BACK = "taken back"  # in a report: why it goes on from its last checkpoint


class ReportCallback(UserCallback):
    """Logs rank 0's metrics of each report once, whatever was restarted or resumed in between.

    Parameters
    ----------
    tracker : of the training run.
    board : a local file; one JSON line per report, for the driver's progress bar; ``{"lost": n}`` when MLflow has not
        taken n of them by now.
    logged_until : the last step that an earlier start of this run has logged.
    metric : that early stopping goes by: with the loss it is the learning curve.
    labels : name of the run and its preset, for Prometheus; None: nothing is shown there.
    folder : of the run, whose record of checkpoints is kept as it is after each report; None: nothing is kept.
    group : of the metrics in MLflow. That of a second training of the run is not ``train``, and it has no other ones.
    """

    def __init__(
        self,
        tracker: Tracker,
        board: Path,
        logged_until: int,
        metric: str = "",
        labels: tuple[str, str] | None = None,
        folder: Path | None = None,
        group: str = "train",
    ):
        self.tracker, self.board, self.logged_until, self.metric = tracker, board, logged_until, metric
        self.labels, self.folder, self.group = labels, folder, group
        self.gauges: TrainGauges | None = None  # made in Ray's controller, to which this is sent
        self.missing: set[int] = set()  # steps up to there that were lost: logged if a restart repeats them

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:  # Ray passes these by keyword
        """Take in a report of all workers; their metrics are equal."""
        self._take_in(metrics[0])
        if self.folder is not None:  # what is kept has been logged: a run that goes on from it repeats no report
            try:
                keep_record(self.folder)
            except Exception:
                logger.exception("the record of checkpoints could not be kept; training goes on")

    def _take_in(self, report: dict[str, Any]) -> None:
        try:
            self._write(report)
            if DIVERGED in report or TAKEN_BACK in report:
                return
            step = int(report["step"])
            if step > self.logged_until or step in self.missing:
                lost = self.tracker.lost
                self.tracker.post_metrics(self._told(report), step)
                self.logged_until = max(step, self.logged_until)
                if self.tracker.lost > lost:
                    self.missing.add(step)
                    self._write({"lost": self.tracker.lost})
                else:
                    self.missing.discard(step)
            if self.labels is not None:
                self.gauges = self.gauges or TrainGauges(*self.labels, self.metric)
                self.gauges.set(report)
        except Exception:
            logger.exception("a report could not be recorded; training goes on")

    def _told(self, report: dict[str, Any]) -> dict[str, Any]:
        told = {name: value for name, value in report.items() if name not in ("step", "total_steps")}
        if self.group == "train":
            return told | learning_curve(told, self.metric)
        return {f"{self.group}/{k.removeprefix('train/')}": v for k, v in told.items() if k.startswith("train/")}

    def _write(self, line: dict[str, Any]) -> None:
        with self.board.open("a") as file:
            file.write(json.dumps(line) + "\n")


@contextmanager
def progress_board(board: Path, metric: str) -> Iterator[None]:
    """Show a bar over the steps that follows the reports in `board`, until the block ends; then what was lost."""
    board.touch()
    done = threading.Event()
    with progress("Starting workers", total=None) as advance:
        watcher = threading.Thread(target=_follow, args=(board, advance, metric, done), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _follow(board: Path, advance: Advance, metric: str, done: threading.Event) -> None:
    shown = lost = 0
    with board.open() as reports:
        while True:
            last = done.is_set()
            for line in reports:
                report = json.loads(line)
                if DIVERGED in report:
                    continue
                if TAKEN_BACK in report:
                    console.print(report[TAKEN_BACK], markup=False, soft_wrap=True)
                    continue
                if "lost" in report:
                    lost = report["lost"]
                    continue
                rate = report.get("train/samples_per_second")
                what = "Training" if rate is None else f"Training, {rate:,.0f} samples/s"
                advance(int(report["step"]) - shown, int(report["total_steps"]), what)
                shown = int(report["step"])
                if f"validation/{metric}" in report:
                    _announce(report, metric)
            if last:
                if lost:
                    console.print(f"MLflow did not take {lost} of the training's reports: its curves have gaps")
                return
            done.wait(POLL_S)


def _announce(report: dict[str, float], metric: str) -> None:
    console.print(
        f"  step {report['step']:>6}  epoch {report['epoch']:.1f}  loss {report.get('train/loss', float('nan')):.4f}"
        f"  {metric} {report[f'validation/{metric}']:.4f}  {report.get('train/samples_per_second', 0):,.0f} samples/s"
    )

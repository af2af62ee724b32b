"""The campaign in MLflow: a parent run, and a child run for every trial, written by one thread of the driver.

One writer for all of them: trials that log from processes of their own lock each other out of a sqlite store. The
thread also keeps a slow server from holding up Ray Tune. Whatever an interrupted driver did not get to log is in the
ledger, from which `settle` completes the runs.
"""

from __future__ import annotations

import logging
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pipelines.config.schema import Config
from pipelines.config.titles import values_title
from pipelines.progress import console
from pipelines.tracking.client import in_short
from pipelines.tracking.notes import best_validation, learning_curve
from pipelines.tracking.run import PAUSE_S, Status, Tracker, find_child, open_run
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.space import trial_config
from pipelines.words import counted

logger = logging.getLogger(__name__)
STATUS: dict[str, Status] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
NUMBER = "mind.trial"  # tag
NAME_LETTERS = 100


def _name(record: TrialRecord) -> str:
    """Name a trial's run: its number, and what is tried in it."""
    tried = values_title({**record.values, **({"train.seed": record.seed} if record.seed else {})})
    return textwrap.shorten(f"{record.number:03d} {tried}", NAME_LETTERS, placeholder=" ...")


class Recorder:
    """Writes the trials' runs. As a context manager it waits for its thread at the end.

    Parameters
    ----------
    parent : the campaign's run.
    base : the configuration that the trials vary.
    campaign : its name.
    """

    def __init__(self, parent: Tracker, base: Config, campaign: str) -> None:
        self.parent, self.base, self.campaign = parent, base, campaign
        self.metric = base.train.metric
        self._runs: dict[int, Tracker] = {}
        self._logged: dict[int, set[int]] = {}  # the steps of each trial that its run has
        self._missed: set[int] = set()
        self._newest: dict[int, TrialRecord] = {}
        self._silent_until = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)
        if self._missed:
            console.print(f"MLflow lacks what {counted(len(self._missed), 'trial')} reported; the next start of the "
                          "campaign makes up for it")  # fmt: skip

    def started(self, record: TrialRecord) -> None:
        self._later(record)

    def reported(self, record: TrialRecord) -> None:
        self._later(record)

    def ended(self, record: TrialRecord) -> None:
        self._later(record)

    def settle(self, records: list[TrialRecord]) -> None:
        """Complete the runs of trials that ended in an earlier start of the campaign."""
        for record in records:
            if record.ended:
                self._thread.submit(self._guarded, self._settle, record)

    def _later(self, record: TrialRecord) -> None:
        self._newest[record.number] = record
        self._thread.submit(self._guarded, self._write, record)

    def _guarded(self, write: Callable[[TrialRecord], None], record: TrialRecord) -> None:
        self._missed.add(record.number)
        if time.monotonic() < self._silent_until:
            return
        try:
            write(record)
            self._missed.discard(record.number)
        except Exception as error:  # a dashboard may not end a campaign; `settle` tries again at the next start
            self._silent_until = time.monotonic() + PAUSE_S
            logger.warning("MLflow: trial %d could not be recorded (%s)", record.number, in_short(error))

    def _write(self, record: TrialRecord) -> None:
        if self._newest[record.number] is not record:  # a record has all reports: a newer one says the same and more
            return
        if record.ended:
            self._end(record)
        else:
            self._log(record)

    def _open(self, record: TrialRecord) -> Tracker:
        if record.number not in self._runs:
            number = str(record.number)
            tracker = open_run(
                trial_config(self.base, record.values, record.seed - self.base.train.seed),
                "tune",
                _name(record),
                run_id=find_child(self.parent, NUMBER, number),
                parent=self.parent.run_id,
                tags={NUMBER: number, "mind.point": str(record.point)},
                keep=False,  # the ledger knows what is missing
            )
            self._runs[record.number] = tracker
            self._logged[record.number] = tracker.steps(f"validation/{self.metric}")
        return self._runs[record.number]

    def _log(self, record: TrialRecord) -> None:
        tracker, logged = self._open(record), self._logged[record.number]
        for report in record.reports:
            if (step := int(report["step"])) not in logged:
                lost = tracker.lost
                told = {name: value for name, value in report.items() if name != "step"}
                tracker.log_metrics(told | learning_curve(told, self.metric), step)
                if tracker.lost == lost:
                    logged.add(step)

    def _end(self, record: TrialRecord) -> None:
        self._log(record)
        tracker = self._runs[record.number]
        if (best := record.best(self.metric)) is not None:
            tracker.log_metrics(best_validation(best), int(best["step"]))
        tracker.log_tags({"mind.status": record.status})
        if record.status == "failed":
            tracker.fail(record.reason or "unknown")
        else:
            tracker.finish(STATUS[record.status])

    def _settle(self, record: TrialRecord) -> None:
        found = find_child(self.parent, NUMBER, str(record.number), status=STATUS[record.status])
        steps = set() if found is None else Tracker(self.parent.uri, found).steps(f"validation/{self.metric}")
        if found is None or steps != {int(report["step"]) for report in record.reports}:
            self._end(record)

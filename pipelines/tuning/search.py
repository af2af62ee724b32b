"""Ray Tune's view of a campaign: the ledger as its searcher, and a callback that writes back what Tune decided.

Tune's own experiment state is not needed to go on: unfinished trials are simply the first that the searcher hands out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from pipelines.config.schema import Config
from pipelines.errors import disk_error
from pipelines.tuning.config import Campaign
from pipelines.tuning.ledger import Ledger, TrialRecord
from pipelines.tuning.proposals import propose
from pipelines.tuning.report.results import leaderboard
from pipelines.tuning.space import trial_config
from pipelines.tuning.trial.training import FAILURE, LAST, REFUSED, REPORTS, reason_of

UNSTARTED = 2  # trials in a row whose process could not be started, each tried `max_failures` times again


class Watcher(Protocol):
    """Whoever follows the trials in the driver; MLflow's recorder and the table on the terminal are two."""

    def started(self, record: TrialRecord) -> None: ...

    def reported(self, record: TrialRecord) -> None:
        """Take in a new report of `record`."""
        ...

    def ended(self, record: TrialRecord) -> None: ...


class Trials:
    """The trials of a running campaign: in memory as far as Tune has them, in the ledger once drawn or ended.

    Parameters
    ----------
    campaign, base : what is searched, and the configuration that the trials vary.
    watchers : told of every change.
    """

    def __init__(self, campaign: Campaign, base: Config, ledger: Ledger, watchers: Sequence[Watcher]) -> None:
        self.campaign, self.base, self.ledger, self.watchers = campaign, base, ledger, watchers
        self.metric = base.train.metric
        self.records = {record.number: record for record in ledger.read()}
        self.sweep()
        self.handed_out: set[int] = set()
        self.lost: str | None = None  # why no process can be kept running
        self.refused: str | None = None  # what a disk refused: the trials that it stopped wait for the next start

    def sweep(self) -> None:
        """Remove what is left of trials that have ended: a kill came between, or their workers ended after them."""
        for record in self.records.values():
            if record.ended:
                self.ledger.forget(record.number)

    def all(self) -> list[TrialRecord]:
        return [self.records[number] for number in sorted(self.records)]

    def add(self, point: int, seed: int, values: dict[str, Any], finalist: bool = False) -> None:
        """Enter a new trial into the ledger."""
        epochs = self.config_of(values, seed).train.epochs
        record = TrialRecord(len(self.records) + 1, point, seed, values, epochs, finalist)
        self.ledger.write(record)
        self.records[record.number] = record

    def add_point(self) -> bool:
        """Draw the next point with all its seeds; False if there is none left."""
        values = propose(self.campaign, self.all(), self.metric)
        if values is None:
            return False
        point = max((record.point for record in self.records.values()), default=0) + 1
        self._add_seeds(point, values)
        return True

    def _add_seeds(self, point: int, values: dict[str, Any], finalist: bool = False) -> None:
        """Enter the trials of a point that are missing: of a finalist all seeds, else those that the search trains."""
        have = {record.seed for record in self.records.values() if record.point == point}
        for seed in self.seeds[: 1 if self.campaign.search.finalists and not finalist else None]:
            if seed not in have:
                self.add(point, seed, values, finalist)

    @property
    def seeds(self) -> list[int]:
        return [self.base.train.seed + number for number in range(self.campaign.search.seeds)]

    def next(self, finalist: bool) -> TrialRecord | None:
        """Find the next trial to train, of the finalists or of the search; a point is drawn if none waits."""
        while True:
            for record in self.left(finalist):
                if record.number not in self.handed_out:
                    self.handed_out.add(record.number)
                    return record
            if finalist or not self.add_point():
                return None

    def left(self, finalist: bool) -> list[TrialRecord]:
        """Count the ledger's trials that have not ended, of the finalists or of the search."""
        return [record for record in self.all() if record.finalist == finalist and not record.ended]

    def any_left(self) -> bool:
        """Say whether there is anything to train; draws a point, or the finalists, if nothing waits."""
        for point, values in {record.point: record.values for record in self.all()}.items():
            self._add_seeds(point, values)  # a kill may have come between the first seed of a point and its last
        if self.left(False) or self.left(True) or self.add_point():
            return True
        self.add_finalists()
        return bool(self.left(True))

    def add_finalists(self) -> None:
        """Enter the missing seeds of the best points, as the search saw them."""
        search = self.campaign.search
        if search.finalists is None:
            return
        alike = self.campaign.model_copy(update={"search": search.model_copy(update={"finalists": None})})
        rows = leaderboard([record for record in self.all() if not record.finalist], self.metric, alike)
        best = sorted((row for row in rows if row.scored), key=lambda row: not row.eligible)[: search.finalists]
        for row in best:
            self._add_seeds(row.point, row.values, finalist=True)

    def config_of(self, values: dict[str, Any], seed: int) -> Config:
        return trial_config(self.base, values, seed - self.base.train.seed)

    def update(self, record: TrialRecord, tell: Callable[[Watcher, TrialRecord], None]) -> None:
        """Take in a new state of a trial; one that has ended goes to the ledger first."""
        self.records[record.number] = record
        if record.ended:
            self.ledger.write(record)
            self.ledger.forget(record.number)
        for watcher in self.watchers:
            tell(watcher, record)


class LedgerSearch(Searcher):
    """Hands out the campaign's trials: those of the search, or the finalists'."""

    def __init__(self, trials: Trials, finalist: bool) -> None:
        super().__init__()
        self.trials, self.finalist = trials, finalist

    def suggest(self, trial_id: str) -> Any:
        record = None if self.trials.lost or self.trials.refused else self.trials.next(self.finalist)
        if record is None:
            return str(Searcher.FINISHED)
        place = str(self.trials.ledger.checkpoint(record.number))
        return {"number": record.number, "seed": record.seed, "values": record.values, "checkpoint": place}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the callback below does it."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher for a restoration that never comes


class LedgerCallback(tune.Callback):
    """Brings what Tune has seen and decided into the trials' records."""

    def __init__(self, trials: Trials) -> None:
        self.trials = trials
        self.unstarted = 0

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record = self._record(trial)
        self.unstarted = 0
        self.trials.update(replace(record, status="running"), lambda watcher, new: watcher.started(new))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        record = self._record(trial)
        known = record.reports[-1]["step"] if record.reports else -1
        more = [report for report in result.get(REPORTS, ()) if report["step"] > known]
        if more:  # not so where a trial that was started anew begins with what is known
            new = replace(record, reports=(*record.reports, *more))
            self.trials.update(new, lambda watcher, new: watcher.reported(new))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record, result = self._record(trial), trial.last_result
        if result.get(REFUSED) is not None:
            self.trials.refused = str(result[REFUSED])
        elif result.get(FAILURE) is not None:
            self._end(replace(record, status="failed", reason=str(result[FAILURE])))
        else:
            self._end(replace(record, status="finished" if result.get(LAST) else "stopped"))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Hand a trial out again whose process died too often, or never came to be: that is not the trial's fault.

        With `UNSTARTED` of those in a row, no process can be kept running.
        """
        record, error = self._record(trial), trial.get_pickled_error()
        if (refused := disk_error(error)) is not None:
            self.trials.refused = str(refused)
            return
        reason = "its process could not be started" if error is None else reason_of(error)
        if record.status == "running":
            times = self.trials.campaign.resources.max_failures + 1
            self._end(
                replace(record, status="failed", reason=f"its process died {times} times, the last time: {reason}")
            )
            return
        self.unstarted += 1
        self.trials.handed_out.discard(record.number)
        if self.unstarted >= UNSTARTED:
            self.trials.lost = reason

    def _end(self, record: TrialRecord) -> None:
        try:
            self.trials.update(record, lambda watcher, new: watcher.ended(new))
        except OSError as error:  # Tune would print it and go on
            if (refused := disk_error(error)) is None:
                raise
            self.trials.refused = str(refused)

    def _record(self, trial: Trial) -> TrialRecord:
        return self.trials.records[trial.config["number"]]

    def __getstate__(self) -> dict[str, Any]:
        return {}

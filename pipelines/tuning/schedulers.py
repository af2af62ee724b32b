"""Ray Tune's schedulers for `stopping`, and how a fresh one is told of the trials of an earlier start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from pipelines.tuning.config import Stopping
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.trial.training import EPOCH, QUALITY


def scheduler_of(stopping: Stopping, epochs: int) -> TrialScheduler:
    """Make Ray Tune's scheduler for `stopping`, with at most `epochs` a trial."""
    if stopping.method == "asha":
        return ASHAScheduler(
            time_attr=EPOCH,
            metric=QUALITY,
            mode="max",
            max_t=epochs + 1,  # a trial ends by itself at `epochs`; Tune would call that stopped
            grace_period=min(stopping.grace_epochs, epochs + 1),  # a later one is asserted against
            reduction_factor=stopping.reduction,
        )
    if stopping.method == "median":
        return _MedianRule(
            time_attr=EPOCH,
            metric=QUALITY,
            mode="max",
            grace_period=stopping.grace_epochs,
            min_samples_required=stopping.min_trials,
            min_time_slice=float("inf"),  # type: ignore[arg-type]  # never pause
        )
    return FIFOScheduler()


def prime(scheduler: TrialScheduler, records: Sequence[TrialRecord], metric: str) -> None:
    """Show a fresh scheduler what it would know of trials that ended in an earlier start of the campaign."""
    nobody: Any = None  # for the controller, which these schedulers ask only about paused trials
    # Past trials may be shown in another order than they ran in: the median rule is not to judge them, only to know
    show = scheduler.on_trial_complete if isinstance(scheduler, MedianStoppingRule) else scheduler.on_trial_result
    for record in records:
        trial: Any = _Past(f"past-{record.number}")
        scheduler.on_trial_add(nobody, trial)
        results = [{QUALITY: report[f"validation/{metric}"], EPOCH: report["epoch"]} for report in record.reports]
        for result in results[:-1] if record.status == "finished" else results:  # as Tune does: a trial that is done
            show(nobody, trial, result)  # is not asked about
        if results and record.status != "failed":
            scheduler.on_trial_complete(nobody, trial, results[-1])


class _MedianRule(MedianStoppingRule):
    """Ray's rule, which does not expect that the last result of a trial has no metric, as one that failed."""

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        if QUALITY in result:
            super().on_trial_complete(controller, trial, result)


class _Past:
    """As much of a Trial as schedulers look at."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id

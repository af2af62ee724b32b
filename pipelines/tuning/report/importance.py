"""Which settings of a campaign moved the metric, and how much each: from TrialRecords, by optuna's fANOVA."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.report.results import best_report, distinct, key_of

FEW_POINTS = 4  # with fewer, importances are guesses
FILLED = 8  # values, at most, that stand in for a setting that does not matter to a point


@dataclass(frozen=True)
class Importance:
    """Each setting's share of the metric's variance, the largest first; of no setting where that cannot be said.

    epoch : every trial counts with its best validation up to here.
    """

    epoch: float
    shares: dict[str, float]


def importance(records: Sequence[TrialRecord], metric: str) -> Importance:
    """Say how much of the metric's variance each setting alone accounts for: fANOVA (Hutter et al. 2014), as shares.

    Notes
    -----
    At equal budget: every point counts with its best validation (mean over seeds) up to the last epoch that all trials
    saw which the scheduler stopped. A trial that ended by itself before has nothing more to show at that budget.

    fANOVA averages evenly over the whole range of a setting, so numbers enter as their rank among the values tried: a
    learning rate drawn in the logarithm then weighs as it was drawn. Words, switches and lists are categories.

    It also wants every setting of every point. A point that a setting does not matter to enters several times, with
    values of that setting drawn from those tried: its metric would be the same with each, and so the setting gets no
    credit for what the one that turned it off did.
    """
    good = [record for record in records if best_report(record, metric) is not None]
    stopped = [record.reports[-1]["epoch"] for record in good if record.status == "stopped"]
    epoch = min(stopped) if stopped else max((record.reports[-1]["epoch"] for record in good), default=0.0)
    scores: dict[int, list[float]] = {}
    values: dict[int, dict[str, Any]] = {}
    for record in good:
        reached = best_report(record, metric, epoch)
        if reached is not None:
            scores.setdefault(record.point, []).append(reached[f"validation/{metric}"])
            values[record.point] = record.values
    target = {point: math.fsum(found) / len(found) for point, found in scores.items()}
    settings = sorted({setting for each in values.values() for setting in each})
    tried = {name: distinct([each[name] for each in values.values() if name in each]) for name in settings}
    several = [name for name in settings if len(tried[name]) > 1]
    if len(target) < FEW_POINTS or len(set(target.values())) == 1 or not several:
        return Importance(epoch, {})
    found = _fanova([values[point] for point in target], list(target.values()), {n: tried[n] for n in several})
    shares = {name: found.get(name, 0.0) for name in settings}
    return Importance(epoch, dict(sorted(shares.items(), key=lambda pair: -pair[1])))


def _fanova(
    points: Sequence[Mapping[str, Any]], target: Sequence[float], tried: Mapping[str, list[Any]]
) -> dict[str, float]:
    """Shares of the settings in `tried` (setting -> its values in order), which sum to 1."""
    with _quiet():
        import optuna  # here: slow to load, and only this needs it
        from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

        spaces: dict[str, BaseDistribution] = {}
        for name, choices in tried.items():
            numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in choices)
            last = len(choices) - 1
            spaces[name] = IntDistribution(0, last) if numbers else CategoricalDistribution(range(last + 1))
        generator, trials = np.random.default_rng(0), []
        places = {name: {key_of(value): place for place, value in enumerate(tried[name])} for name in tried}
        for values, metric in zip(points, target, strict=True):
            off = [name for name in tried if name not in values]
            known = {name: places[name][key_of(values[name])] for name in tried if name in values}
            copies = min(FILLED, max((len(tried[name]) for name in off), default=1))
            drawn = {name: generator.permutation(np.resize(generator.permutation(len(tried[name])), copies))
                     for name in off}  # fmt: skip
            for copy in range(copies):
                params = known | {name: int(drawn[name][copy]) for name in off}
                trials.append(optuna.create_trial(params=params, distributions=spaces, value=metric))
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = optuna.create_study(direction="maximize")
            study.add_trials(trials)
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
            return {name: float(share) for name, share in found.items()}
        finally:
            optuna.logging.set_verbosity(before)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

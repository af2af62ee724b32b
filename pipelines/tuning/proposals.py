"""Which point a campaign tries next: a pure function of the campaign and its trials so far.

Nothing else is remembered between two proposals. A campaign that was killed thus goes on as if it never had been, and
one whose `trials` are raised later ends where it would have ended with that many from the start.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.tuning.config import Campaign
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.space import (
    Point,
    Space,
    belongs,
    distributions,
    draw,
    every_point,
    grid_part,
    grid_points,
    identity,
    optuna_params,
    suggest,
)

if TYPE_CHECKING:
    import optuna

REDRAWS = 100  # of a point that is already there
ASKED = 10  # times that optuna is, before chance takes over
ENUMERATED = 10_000  # a discrete space of up to so many points is searched for those left


def propose(campaign: Campaign, history: Sequence[TrialRecord], metric: str) -> Point | None:
    """Choose the values of the next new point.

    Parameters
    ----------
    campaign : Campaign
        A checked one, see `check_space`.
    history : sequence of TrialRecord
        All trials so far, in whatever state.
    metric : str
        What optuna maximises, as ``ndcg@20``.

    Returns
    -------
    dict or None
        Setting -> value; None when no point is left.
    """
    points = points_of(history)
    if campaign.search.method == "grid":
        return _next_of_grid(campaign.space, points)
    if campaign.search.method == "random":
        return _next_of_draws(campaign, points)
    return _next_of_optuna(campaign, points, metric)


def points_of(history: Sequence[TrialRecord]) -> list[list[TrialRecord]]:
    """Group the trials by point, points in the order of drawing."""
    points: dict[int, list[TrialRecord]] = {}
    for record in sorted(history, key=lambda record: (record.point, record.number)):
        points.setdefault(record.point, []).append(record)
    return list(points.values())


def point_scores(trials: Sequence[TrialRecord], *keys: str) -> list[float] | None:
    """Average over the seeds of each key their best report by the first, ``validation/<metric>``.

    A trial that failed or never validated says nothing; None where all are such.
    """
    metric = keys[0].removeprefix("validation/")
    reports = [report for trial in trials if trial.status != "failed" and (report := trial.best(metric))]
    return [float(np.mean([report[key] for report in reports])) for key in keys] if reports else None


# ---------------------------------------------------------------- grid, random


def _next_of_grid(space: Space, points: Sequence[Sequence[TrialRecord]]) -> Point | None:
    seen = _seen(points)
    return next((point for point in grid_points(space) if identity(point) not in seen), None)


def _next_of_draws(campaign: Campaign, points: Sequence[Sequence[TrialRecord]]) -> Point | None:
    """Draw the next repetition of the cell (point of the grids) with the fewest, so that more `trials` only append."""
    space, seen = campaign.space, _seen(points)
    cells = grid_points(space)
    index = {identity(cell): number for number, cell in enumerate(cells)}
    drawn = [0] * len(cells)
    for trials in points:
        cell_number = index.get(identity(grid_part(space, trials[0].values)))
        if cell_number is not None:
            drawn[cell_number] += 1
    for repetition, number in sorted((count, number) for number, count in enumerate(drawn)):
        if repetition >= campaign.search.trials:
            break
        generator = _generator(campaign, repetition * len(cells) + number + 1)
        if (point := _unseen(space, cells[number], generator, seen)) is not None:
            return point  # otherwise this cell is used up, the others may not be
    return None


def _unseen(
    space: Space, cell: Mapping[str, Any], generator: np.random.Generator, seen: AbstractSet[Any]
) -> Point | None:
    """Draw a point of the cell that is not in `seen`; of a small discrete space one is found if there is one."""
    for _ in range(REDRAWS):
        point = draw(space, cell, generator)
        if identity(point) not in seen:
            return point
    here = identity(cell)
    left = [
        point
        for point in every_point(space, ENUMERATED) or ()
        if identity(point) not in seen and identity(grid_part(space, point)) == here
    ]
    return left[int(generator.integers(len(left)))] if left else None


def _seen(points: Sequence[Sequence[TrialRecord]]) -> AbstractSet[Any]:
    return {identity(trials[0].values) for trials in points}


def _generator(campaign: Campaign, number: int) -> np.random.Generator:
    return np.random.default_rng([campaign.search.seed, number])


# ---------------------------------------------------------------- optuna


def _next_of_optuna(campaign: Campaign, points: Sequence[Sequence[TrialRecord]], metric: str) -> Point | None:
    if len(points) >= campaign.search.trials:
        return None
    import optuna

    generator = _generator(campaign, len(points) + 1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cost = campaign.search.cost
    keys = [f"validation/{metric}"] + ([f"serving/{cost}"] if cost else [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of group
        sampler = optuna.samplers.TPESampler(
            seed=int(generator.integers(2**32)), multivariate=True, group=True, constant_liar=True
        )
        directions = [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
        study = optuna.create_study(directions=directions[: len(keys)], sampler=sampler)
        study.add_trials(_as_optuna(campaign.space, points, keys))
        seen = _seen(points)
        for _ in range(ASKED):
            point = suggest(campaign.space, study.ask())  # one too many goes on as running: the next keeps away
            if identity(point) not in seen:
                return point
    return _unseen(campaign.space, {}, generator, seen)


def _as_optuna(
    space: Space, points: Sequence[Sequence[TrialRecord]], keys: Sequence[str]
) -> list[optuna.trial.FrozenTrial]:
    """Turn the points into optuna's trials; those drawn before the space was changed say nothing about this one."""
    from optuna.trial import TrialState, create_trial

    domains = distributions(space)
    known = []
    for trials in points:
        values = trials[0].values
        if not belongs(space, values):
            continue
        # A trial that the scheduler stopped is complete with its best so far. As pruned, TPE would rank it behind every
        # complete one, however bad, and with two objectives not at all. Running ones repel (constant_liar).
        scores = point_scores(trials, *keys) if all(trial.ended for trial in trials) else None
        good = scores is not None and all(map(math.isfinite, scores))
        ended = TrialState.COMPLETE if good else TrialState.FAIL
        known.append(
            create_trial(
                state=ended if all(trial.ended for trial in trials) else TrialState.RUNNING,
                values=scores if good else None,
                params=optuna_params(space, values),
                distributions={name: domains[name] for name in values},
            )
        )
    return known

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.tuning.config import Campaign
from pipelines.tuning.ledger import Status, TrialRecord
from pipelines.tuning.proposals import _as_optuna, point_scores, points_of, propose
from pipelines.tuning.space import identity

METRIC = "ndcg@20"
Objective = Callable[[Mapping[str, Any]], tuple[float, float]]


def campaign(space: Mapping[str, Any], **search: Any) -> Campaign:
    return Campaign.model_validate({"campaign": "c", "base": "base.yaml", "space": space, "search": search})


def trial(
    values: Mapping[str, Any], number: int, *scores: float, status: Status = "finished", cost: float = 0, seed: int = 0
) -> TrialRecord:
    """A training of its own point, validated with these scores."""
    reports = tuple(
        {"step": n, f"validation/{METRIC}": score, "serving/lookups": cost} for n, score in enumerate(scores)
    )
    return TrialRecord(number, number, seed, dict(values), 9, status=status, reports=reports)


def run(
    campaign: Campaign, history: Sequence[TrialRecord] = (), objective: Objective = lambda _: (0, 0), limit: int = 999
) -> list[TrialRecord]:
    """What a process does: propose, train, write down, until nothing is left or `limit` points are there."""
    trials = list(history)
    while len(trials) < limit and (values := propose(campaign, trials, METRIC)) is not None:
        score, cost = objective(values)
        trials.append(trial(values, len(trials) + 1, score, cost=cost))
    return trials


def proposed(*args: Any, **options: Any) -> list[dict[str, Any]]:
    return [record.values for record in run(*args, **options)]


def reloaded(history: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [TrialRecord(**json.loads(json.dumps(asdict(record)))) for record in history]


GRID = {"k": {"grid": [1, 2, 4]}, "r": {"grid": [1, 3], "when": {"k": [2, 4]}}}
GRID_POINTS = [{"k": 1}, {"k": 2, "r": 1}, {"k": 2, "r": 3}, {"k": 4, "r": 1}, {"k": 4, "r": 3}]
CONTINUOUS = {"x": {"uniform": [-1, 1]}, "y": {"log_uniform": [1e-4, 1e0]}}
CONDITIONAL = {
    "encoder": {"choice": ["mind", "mean"]},
    "hidden": {"choice": [[], [64], [64, 32]]},
    "k": {"integer": [1, 8], "log": True, "when": {"encoder": "mind"}},
    "sigma": {"uniform": [0.1, 2], "when": {"k": [2, 3, 4, 5, 6, 7, 8]}},
    "width": {"integer": [8, 64], "step": 8, "when": {"encoder": "mean"}},
}


def smooth(values: Mapping[str, Any]) -> tuple[float, float]:
    """The best is at x = 0.3, y = 0.01."""
    return 1 - (values["x"] - 0.3) ** 2 - (math.log10(values["y"]) + 2) ** 2 / 4, 0


# ---------------------------------------------------------------- points and their scores


def test_trials_of_a_point_stand_together_in_the_order_of_drawing() -> None:
    a, b = trial({"k": 1}, 1), trial({"k": 2}, 2)
    again = replace(a, number=3, seed=1)
    assert points_of([b, again, a]) == [[a, again], [b]]


def test_a_points_score_is_the_mean_of_its_seeds_best() -> None:
    a, b = trial({"k": 1}, 1, 0.2, 0.4, 0.3, cost=3), trial({"k": 1}, 2, 0.2, cost=5, status="stopped")
    failed, early = trial({"k": 1}, 3, 0.9, status="failed"), trial({"k": 1}, 4, status="running")
    assert point_scores([a, b, failed, early], f"validation/{METRIC}", "serving/lookups") == pytest.approx([0.3, 4])
    assert point_scores([failed, early], f"validation/{METRIC}") is None


# ---------------------------------------------------------------- grid


def test_a_grid_is_tried_in_order_and_once() -> None:
    assert proposed(campaign(GRID)) == GRID_POINTS


@pytest.mark.parametrize("status", ["waiting", "running", "finished", "stopped", "failed"])
def test_a_grid_point_in_whatever_state_is_not_proposed_again(status: Status) -> None:
    history = reloaded([trial(point, n, status=status) for n, point in enumerate(GRID_POINTS[:2], 1)])
    assert propose(campaign(GRID), history, METRIC) == GRID_POINTS[2]


def test_a_grid_that_gains_a_value_gains_its_points_only() -> None:
    history = run(campaign(GRID))
    wider = campaign({**GRID, "k": {"grid": [1, 2, 3, 4]}})
    assert proposed(wider, history)[5:] == [{"k": 3}]
    wider = campaign({"k": {"grid": [1, 2, 3, 4]}, "r": {"grid": [1, 3], "when": {"k": [2, 3, 4]}}})
    assert proposed(wider, history)[5:] == [{"k": 3, "r": 1}, {"k": 3, "r": 3}]


# ---------------------------------------------------------------- random


def test_draws_are_repeated_over_the_cells_so_that_more_trials_only_append() -> None:
    space = {"x": {"uniform": [0, 1]}, "k": {"grid": [1, 2, 3]}}
    two = proposed(campaign(space, method="random", trials=2))
    assert [point["k"] for point in two] == [1, 2, 3, 1, 2, 3]
    assert len({point["x"] for point in two}) == 6
    assert proposed(campaign(space, method="random", trials=4))[:6] == two


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    stopped=st.integers(0, 12),
    space=st.sampled_from(
        [
            CONTINUOUS,
            CONDITIONAL,
            {**CONTINUOUS, "k": {"grid": [1, 2]}, "n": {"choice": [1, 2], "when": {"k": 2}}},
            {"k": {"grid": [1, 2]}, "n": {"integer": [1, 4], "when": {"k": 2}}},  # a cell of one point, one of four
        ]
    ),
)
def test_a_random_campaign_that_goes_on_or_grows_ends_as_if_it_had_never_stopped(
    seed: int, stopped: int, space: Mapping[str, Any]
) -> None:
    whole = proposed(campaign(space, method="random", trials=8, seed=seed))
    before = run(campaign(space, method="random", trials=4, seed=seed), limit=stopped)
    assert proposed(campaign(space, method="random", trials=8, seed=seed), reloaded(before)) == whole
    assert len({identity(point) for point in whole}) == len(whole)


def test_random_draws_do_not_depend_on_how_the_trials_went() -> None:
    drawn = campaign(CONTINUOUS, method="random", trials=3)
    history = run(drawn, limit=2)
    other = [replace(record, status="failed", reports=()) for record in history]
    assert propose(drawn, history, METRIC) == propose(drawn, other, METRIC)


def test_another_seed_draws_other_points() -> None:
    first = proposed(campaign(CONTINUOUS, method="random", trials=1, seed=0))
    assert first != proposed(campaign(CONTINUOUS, method="random", trials=1, seed=1))


def test_a_discrete_space_is_exhausted_without_repeating_a_point() -> None:
    space = {"k": {"choice": [1, 2, 4]}, "n": {"integer": [0, 9], "step": 3}, "h": {"choice": [[], [8]]}}
    points = proposed(campaign(space, method="random", trials=500))
    assert len(points) == len({identity(point) for point in points}) == 3 * 4 * 2


def test_the_last_point_of_a_large_discrete_space_is_found() -> None:
    drawn = campaign({"k": {"integer": [1, 2000]}}, method="random", trials=5000)
    history = [trial({"k": k}, k) for k in range(1, 2001) if k != 1234]
    assert propose(drawn, history, METRIC) == {"k": 1234}


def test_a_cell_that_is_used_up_leaves_the_others_their_draws() -> None:
    space = {"encoder": {"grid": ["mean", "mind"]}, "x": {"uniform": [0, 1], "when": {"encoder": "mind"}}}
    points = proposed(campaign(space, method="random", trials=3))
    assert [point["encoder"] for point in points] == ["mean", "mind", "mind", "mind"]


# ---------------------------------------------------------------- optuna


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("space", [CONTINUOUS, CONDITIONAL])
def test_an_optuna_campaign_that_goes_on_or_grows_ends_as_if_it_had_never_stopped(
    space: Mapping[str, Any], objectives: int
) -> None:
    def objective(values: Mapping[str, Any]) -> tuple[float, float]:
        return sum(map(len, map(str, values.values()))), len(values)

    search = {"method": "optuna", "cost": "lookups" if objectives == 2 else None, "seed": 5}
    whole = proposed(campaign(space, trials=20, **search), objective=objective)
    for stopped in (3, 13):
        before = run(campaign(space, trials=stopped, **search), objective=objective)
        assert len(before) == stopped
        assert proposed(campaign(space, trials=20, **search), reloaded(before), objective) == whole


def test_optuna_proposes_the_same_in_every_process() -> None:
    """Python's sets of text have another order in each."""
    code = (
        "from tests.pipelines.tuning.test_proposals import CONDITIONAL, campaign, proposed;"
        "objective = lambda values: (len(values['hidden']) + values.get('k', 0), 0);"
        "print(proposed(campaign(CONDITIONAL, method='optuna', trials=16), objective=objective))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 500


def test_optuna_finds_a_planted_optimum_that_chance_misses() -> None:
    def regret(method: str, seed: int) -> float:
        trials = run(campaign(CONTINUOUS, method=method, trials=40, seed=seed), objective=smooth)
        return 1 - max(smooth(record.values)[0] for record in trials)

    tpe = [regret("optuna", seed) for seed in range(6)]
    chance = [regret("random", seed) for seed in range(6)]
    assert np.mean(tpe) < 0.5 * np.mean(chance), (tpe, chance)
    assert np.max(tpe) < 0.02


def test_optuna_learns_within_a_conditional_space() -> None:
    def objective(values: Mapping[str, Any]) -> tuple[float, float]:
        if values["encoder"] == "mean":
            return 0.3, 0
        return 0.5 + 0.05 * (8 - abs(values["k"] - 6)) - abs(values.get("sigma", 3) - 1) / 4, 0

    trials = run(campaign(CONDITIONAL, method="optuna", trials=50, seed=1), objective=objective)
    assert all(("k" in record.values) == (record.values["encoder"] == "mind") for record in trials)
    assert all(("sigma" in record.values) == (record.values.get("k", 1) > 1) for record in trials)
    assert any(record.values["hidden"] == [64, 32] for record in trials)
    late = [record.values for record in trials[25:]]
    assert np.mean([values["encoder"] == "mind" for values in late]) > 0.7
    assert max(objective(record.values)[0] for record in trials) > 0.82


def test_with_a_cost_optuna_looks_along_the_whole_trade() -> None:
    """Quality rises with k at a falling rate and so does the cost; where y is far off, both are bad."""

    def objective(values: Mapping[str, Any]) -> tuple[float, float]:
        waste = abs(math.log10(values["y"]) + 2)
        return math.sqrt(values["k"]) - waste, values["k"] + waste

    space = {"k": {"integer": [1, 64]}, "y": CONTINUOUS["y"]}
    trials = run(campaign(space, method="optuna", cost="lookups", trials=60, seed=2), objective=objective)
    late = [record.values for record in trials[30:]]
    assert np.median([abs(math.log10(values["y"]) + 2) for values in late]) < 0.6  # of chance: 1
    assert min(values["k"] for values in late) <= 10  # and not only the best or the cheapest
    assert max(values["k"] for values in late) >= 40


def test_running_points_repel_the_next() -> None:
    """Twelve ended ones draw optuna to x = 0; once some are running there it looks further away."""
    space = {"x": {"uniform": [-10, 10]}}
    ended = [trial({"x": x}, n, -abs(x)) for n, x in enumerate(np.linspace(-10, 10, 13).tolist(), 1)]

    def distances(running: int) -> list[float]:
        history = [*ended, *(trial({"x": 0.01 * n}, 14 + n, status="running") for n in range(running))]
        found = []
        for seed in range(15):
            point = propose(campaign(space, method="optuna", trials=100, seed=seed), history, METRIC)
            assert point is not None
            found.append(abs(point["x"]))
        return found

    assert np.median(distances(12)) > 2 * np.median(distances(0))


def test_the_state_of_a_point_is_told_to_optuna() -> None:
    space = campaign({"x": {"uniform": [0, 1]}, "h": {"choice": [[], [8]]}}).space
    values = {"x": 0.5, "h": [8]}
    histories = {
        "COMPLETE": [trial(values, 1, 0.2, 0.4), replace(trial(values, 2, 0.2), point=1)],
        "RUNNING": [trial(values, 1, 0.2), replace(trial(values, 2, status="waiting"), point=1)],
        "FAIL": [trial(values, 1, 0.4, status="failed")],
    }
    for state, history in histories.items():
        (told,) = _as_optuna(space, points_of(history), [f"validation/{METRIC}"])
        assert told.state.name == state
        assert told.params == {"x": 0.5, "h": 1}
        assert told.value == (pytest.approx(0.3) if state == "COMPLETE" else None)
    (stopped,) = _as_optuna(space, [[trial(values, 1, 0.3, 0.2, status="stopped")]], [f"validation/{METRIC}"])
    assert (stopped.state.name, stopped.value) == ("COMPLETE", 0.3)
    for bad in ((), (math.nan,)):
        (told,) = _as_optuna(space, [[trial(values, 1, *bad, status="stopped")]], [f"validation/{METRIC}"])
        assert told.state.name == "FAIL"


def test_points_of_a_space_that_has_changed_since_are_counted_and_otherwise_ignored() -> None:
    history = [trial({"x": 5.0, "gone": "a"}, n, 0.1) for n in range(1, 13)]
    now = campaign({"x": {"uniform": [0, 1]}}, method="optuna", trials=13)
    point = propose(now, history, METRIC)
    assert point is not None
    assert 0 <= point["x"] <= 1
    assert propose(now, [*history, trial(point, 13, 0.1)], METRIC) is None


def test_optuna_exhausts_a_discrete_space_without_repeating_a_point() -> None:
    space = {"k": {"choice": [1, 2, 4]}, "n": {"integer": [0, 9], "step": 3}, "one": {"choice": ["only"]}}
    points = proposed(campaign(space, method="optuna", trials=100), objective=lambda values: (values["k"], 0))
    assert len(points) == len({identity(point) for point in points}) == 12


def test_optuna_repeats_no_failed_point() -> None:
    asked = campaign({"k": {"choice": [1, 2]}}, method="optuna", trials=9)
    history = [trial({"k": 1}, 1, status="failed")]
    assert propose(asked, history, METRIC) == {"k": 2}


def test_optuna_says_nothing(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    run(campaign(CONDITIONAL, method="optuna", cost="lookups", trials=13), objective=lambda v: (len(v), 1))
    captured = capfd.readouterr()
    assert (captured.out, captured.err, [str(warning.message) for warning in recwarn]) == ("", "", [])

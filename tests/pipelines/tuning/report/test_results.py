"""What a ledger says: ranking, the winner and how sure it is, savings."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from pipelines.tuning.config import Finish
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.report.results import (
    Row,
    by_value,
    compare,
    heat_map,
    leaderboard,
    pareto,
    rival_of,
    savings,
    winner,
)
from tests.pipelines.tuning.ledgers import METRIC, campaign, seeds, trial

K, R = "model.interests", "model.iterations"
FINALISTS = {"search": {"seeds": 2, "finalists": 1}}


def rows_of(records: list[TrialRecord], **changes: Any) -> list[Row]:
    return leaderboard(records, METRIC, campaign(**changes))


def test_points_rank_by_the_mean_over_seeds_of_the_best_validation() -> None:
    rows = rows_of(seeds(1, 0.2, 0.4) + seeds(2, 0.35, 0.35, first=3) + [trial(5, [0.1, 0.32], point=3)])
    assert [(row.rank, row.point) for row in rows] == [(1, 2), (2, 3), (3, 1)]
    last = rows[2]
    assert last.metric == pytest.approx(0.3)
    assert last.deviation == pytest.approx(math.sqrt(0.02))
    assert last.scores == {0: 0.2, 1: 0.4}
    assert (last.best_epoch, last.epochs, last.seconds, last.trials) == (2, 3, 30, 2)
    assert rows[1].deviation is None


def test_a_stopped_point_ranks_by_its_best_and_is_marked() -> None:
    rows = rows_of([trial(1, [0.3, 0.2], status="stopped"), trial(2, [0.1, 0.25])])
    assert [(row.point, row.cut_short, row.stopped) for row in rows] == [(1, True, 1), (2, False, 0)]


def test_a_stopped_seed_stays_in_the_mean_of_its_point() -> None:
    first, second = seeds(1, 0.2, 0.4)
    (row,) = rows_of([replace(first, status="stopped"), second])
    assert row.metric == pytest.approx(0.3)
    assert not row.cut_short


def test_failed_trainings_are_counted_and_do_not_enter_the_mean() -> None:
    good, bad = seeds(1, 0.2, 0.9)
    (row,) = rows_of([good, replace(bad, status="failed", reason="boom")])
    assert (row.metric, row.failed, row.finished, row.reason) == (0.2, 1, 1, "boom")


def test_points_without_a_validation_come_last_and_never_win() -> None:
    rows = rows_of([trial(1, [], status="failed", reason="boom"), trial(2, [math.nan]), trial(3, [0.0])])
    assert [row.point for row in rows] == [3, 1, 2]
    assert math.isnan(rows[1].metric)
    assert [row.eligible for row in rows] == [True, False, False]
    assert winner(rows_of([trial(1, [], status="failed")]), Finish()) is None


def test_trials_that_have_not_ended_are_left_out() -> None:
    assert rows_of([trial(1, [0.1], status="running"), trial(2, [], status="waiting")]) == []


def test_a_validation_that_is_no_number_is_passed_over() -> None:
    (row,) = rows_of([trial(1, [math.nan, 0.2, 0.1])])
    assert (row.metric, row.best_epoch) == (0.2, 2)


def test_a_seed_trained_again_to_its_end_takes_the_place_of_the_stopped_one() -> None:
    short = trial(1, [0.5], {K: 1}, point=1, status="stopped")
    (row,) = rows_of([short, trial(2, [0.1, 0.3], {K: 1}, point=1)])
    assert row.scores == {0: 0.3}


def test_cost_is_of_the_best_validation() -> None:
    cheap, dear = seeds(1, 0.2, 0.3)
    dear = replace(dear, reports=tuple(report | {"serving/lookups": 7.0} for report in dear.reports))
    (row,) = rows_of([cheap, dear])
    assert (row.lookups, row.multiply_adds) == (7.0, 64.0)


def test_with_finalists_points_with_all_seeds_come_first_and_alone_may_win() -> None:
    records = [trial(1, [0.9], point=1), *seeds(2, 0.5, 0.5, first=2)]
    assert [(row.point, row.eligible) for row in rows_of(records, **FINALISTS)] == [(2, True), (1, False)]
    assert [(row.point, row.eligible) for row in rows_of(records)] == [(1, True), (2, True)]


def test_where_no_finalist_has_all_seeds_those_with_the_most_come_first() -> None:
    records = [trial(1, [0.9], point=1), *seeds(2, 0.5, 0.5, first=2)]
    rows = rows_of(records, search={"seeds": 5, "finalists": 1})
    assert [(row.point, row.eligible) for row in rows] == [(2, True), (1, False)]


def test_a_stopped_point_wins_only_if_none_finished() -> None:
    records = [trial(1, [0.3], status="stopped"), trial(2, [0.2])]
    won = winner(rows_of(records), Finish())
    assert won is not None
    assert won.point == 2
    won = winner(rows_of(records[:1]), Finish())
    assert won is not None
    assert won.point == 1


@pytest.mark.parametrize(("tolerance", "point"), [(0.0, 3), (0.05, 2), (0.2, 1)])
def test_cheapest_within_gives_up_at_most_the_tolerance(tolerance: float, point: int) -> None:
    rows = rows_of([trial(1, [0.81], lookups=1), trial(2, [0.95], lookups=2), trial(3, [1.0], lookups=4)])
    won = winner(rows, Finish(choose="cheapest_within", tolerance=tolerance))
    assert won is not None
    assert won.point == point


def test_equally_few_lookups_are_settled_by_multiply_adds_then_the_metric() -> None:
    rows = rows_of([trial(n, [metric], lookups=2) for n, metric in ((1, 1.0), (2, 0.999), (3, 0.998))])
    finish = Finish(choose="cheapest_within", tolerance=0.1)
    won = winner(rows, finish)
    assert won is not None
    assert won.point == 1
    narrow = [replace(row, multiply_adds=32.0) if row.point == 3 else row for row in rows]
    won = winner(narrow, finish)
    assert won is not None
    assert won.point == 3


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=12))
def test_pareto_keeps_exactly_the_points_that_nothing_beats(points: list[tuple[int, int]]) -> None:
    rows = rows_of([trial(n, [m / 10], lookups=cost) for n, (m, cost) in enumerate(points, start=1)])
    front = {row.point for row in pareto(rows)}
    for n, (m, cost) in enumerate(points, start=1):
        beaten = any(a >= m and b <= cost and (a, b) != (m, cost) for a, b in points)
        assert (n in front) != beaten


def test_the_interval_is_welch() -> None:
    first, second = [0.30, 0.32, 0.34], [0.20, 0.25, 0.21]
    rows = rows_of(seeds(1, *first) + seeds(2, *second, first=4))
    found = compare(rows, rows[0])[2]
    expected = ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.difference == pytest.approx(0.1)
    assert found.told_apart


def test_an_interval_around_zero_does_not_tell_apart() -> None:
    rows = rows_of(seeds(1, 0.30, 0.34) + seeds(2, 0.29, 0.33, first=3))
    assert not compare(rows, rows[0])[2].told_apart


def test_seeds_that_agree_to_the_last_digit_have_an_interval_of_no_width() -> None:
    rows = rows_of(seeds(1, 0.5, 0.5) + seeds(2, 0.25, 0.25, first=3))
    found = compare(rows, rows[0])[2]
    assert (found.low, found.high, found.told_apart) == (0.25, 0.25, True)


def test_one_training_each_is_not_compared() -> None:
    rows = rows_of([trial(1, [0.2]), trial(2, [0.1])])
    assert compare(rows, rows[0]) == {}


def test_the_rival_is_the_best_with_the_values_or_the_best_without_them_if_the_winner_has_them() -> None:
    ledger = [
        trial(1, [0.30], values={K: 1}),
        trial(2, [0.40], values={K: 2}),
        trial(3, [0.35], values={K: 1, "x": [8, 4]}),
        trial(4, [0.39], values={K: 4}, status="stopped"),
        trial(5, [0.38], values={K: 3}),
    ]
    rows = rows_of(ledger)
    by_point = {row.point: row for row in rows}
    found = [rival_of(rows, by_point[first], values) for first, values in (
        (2, {K: 1}), (3, {K: 1}), (2, {"x": [8, 4]}), (2, {K: 9}), (2, {K: 4}), (1, {K: 1, "x": [8, 4]}),
    )]  # fmt: skip
    assert [row and row.point for row in found] == [3, 2, 3, None, 4, 3]


def test_by_value_has_the_best_point_and_all_means_of_each_value() -> None:
    rows = rows_of([trial(1, [0.1], {K: 4}), trial(2, [0.3], {K: 4}), trial(3, [0.2], {K: 1}), trial(4, [0.9], {R: 1})])
    found = by_value(rows, K)
    assert [(each.value, each.best.point, each.metrics) for each in found] == [(1, 3, [0.2]), (4, 2, [0.3, 0.1])]


def test_a_point_that_a_setting_does_not_matter_to_fills_its_column() -> None:
    rows = rows_of(
        [
            trial(1, [0.1], {K: 1}),
            trial(2, [0.2], {K: 2, R: 1}, status="stopped"),
            trial(3, [0.3], {K: 2, R: 3}),
            trial(4, [0.4], {K: 4, R: 3}),
            trial(5, [], {K: 8, R: 1}, status="failed"),
        ]
    )
    found = heat_map(rows, K, R)
    assert (found.x_values, found.y_values) == ([1, 2, 4], [1, 3])
    np.testing.assert_array_equal(found.metrics, [[0.1, 0.2, math.nan], [0.1, 0.3, 0.4]])
    np.testing.assert_array_equal(found.points, [[1, 2, 0], [1, 3, 4]])
    np.testing.assert_array_equal(found.cut_short, [[False, True, False], [False, False, False]])


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([None, 1, 2]), st.integers(0, 9)), min_size=1))
def test_a_heat_map_cell_is_the_best_of_the_points_that_stand_there(points: list[tuple[int, int | None, int]]) -> None:
    records = [
        trial(n, [m / 10], {K: k} | ({} if r is None else {R: r})) for n, (k, r, m) in enumerate(points, start=1)
    ]
    found = heat_map(rows_of(records), K, R)
    for line, depth in enumerate(found.y_values):
        for column, interests in enumerate(found.x_values):
            there = [m / 10 for k, r, m in points if k == interests and r in (None, depth)]
            np.testing.assert_equal(found.metrics[line, column], max(there, default=math.nan))


def test_savings_are_the_missing_epochs_at_the_trials_own_pace() -> None:
    found = savings(
        [
            trial(1, [0.1] * 10, pace=5),
            trial(2, [0.1] * 2, status="stopped", pace=20),
            trial(3, [0.1] * 3, status="failed"),
            trial(4, [0.1] * 4),  # train.patience ended it
            trial(5, [0.1] * 4, status="running"),
            trial(6, [], status="failed"),
        ]
    )
    assert (found.epochs, found.seconds) == (19, 50 + 40 + 30 + 40)
    assert (found.saved_epochs, found.saved_seconds) == (8, 160)
    assert found.saved_share == 0.5
    assert savings([]).saved_share == 0

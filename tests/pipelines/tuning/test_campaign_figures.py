"""Figures of a campaign show the values given, and nothing where there is nothing to compare."""

from __future__ import annotations

import io

import pytest
from matplotlib.figure import Figure

from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.report.figures import (
    against_k_figure,
    campaign_figures,
    curves_figure,
    heat_map_figure,
    importance_figure,
    parallel_figure,
    pareto_figure,
)
from pipelines.tuning.report.importance import Importance
from pipelines.tuning.report.results import leaderboard
from tests.pipelines.tuning.ledgers import METRIC, RANDOM, campaign, grid_ledger, random_ledger, trial

K, R = "model.interests", "model.iterations"
SMALL = [
    trial(1, [0.1], {K: 1}, status="stopped"),
    trial(2, [0.2], {K: 2, R: 1}),
    trial(3, [0.25, 0.3], {K: 2, R: 3}),
    trial(4, [0.05], {K: 8, R: 3}, status="failed"),
]
ROWS = leaderboard(SMALL, METRIC, campaign())


def texts(figure: Figure | None) -> list[str]:
    assert figure is not None
    figure.savefig(io.BytesIO())
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def labels(figure: Figure | None, axis: str = "x") -> list[str]:
    assert figure is not None
    return [label.get_text() for label in getattr(figure.axes[0], f"get_{axis}ticklabels")()]


def legend(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_heat_map_says_the_metric_in_each_cell_and_marks_what_was_stopped() -> None:
    figure = heat_map_figure(ROWS, K, R, METRIC, ROWS[0])
    assert sorted(texts(figure)) == ["0.1000", "0.1000", "0.2000", "0.3000"]
    assert (labels(figure), labels(figure, "y")) == (["1", "2"], ["1", "3"])
    assert legend(figure) == ["winner", "stopped early"]


def test_parallel_coordinates_have_an_axis_a_setting_and_a_place_for_what_does_not_matter() -> None:
    figure = parallel_figure(ROWS, campaign(), METRIC, ROWS[0])
    assert labels(figure) == ["model.\ninterests", "model.\niterations", METRIC]
    assert {"1", "2", "3", "not used", "0.1000", "0.3000"} <= set(texts(figure))


def test_parallel_coordinates_place_a_logarithmic_setting_by_its_logarithm() -> None:
    space = {"optim.learning_rate": {"log_uniform": [1e-4, 1e-2]}}
    rates = [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]
    records = [trial(n, [0.1 * n], {"optim.learning_rate": rate}) for n, rate in enumerate(rates, start=1)]
    chosen = campaign(space=space)
    figure = parallel_figure(leaderboard(records, METRIC, chosen), chosen, METRIC)
    assert {"0.0001", "0.001", "0.01"} <= set(texts(figure))
    assert figure is not None
    assert any(line.get_ydata()[0] == pytest.approx(0.5) for line in figure.axes[0].lines)  # type: ignore[index]


def test_against_k_has_the_best_of_each_value_and_every_point() -> None:
    figure = against_k_figure(ROWS, METRIC, ROWS[0])
    assert labels(figure) == ["1", "2"]
    assert figure is not None
    drawn = [list(line.get_ydata()) for line in figure.axes[0].lines]  # type: ignore[arg-type]
    assert [0.1, 0.3] in drawn
    assert [0.2] in drawn


def test_importances_are_named_and_said() -> None:
    figure = importance_figure(Importance(2, {K: 0.75, R: 0.25}), METRIC)
    assert texts(figure) == ["75%", "25%"]
    assert labels(figure, "y") == [K, R]


def test_curves_are_every_trial_that_validated() -> None:
    figure = curves_figure(SMALL, METRIC, ROWS[0])
    assert figure is not None
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[0.1], [0.2], [0.25, 0.3], [0.05]]  # type: ignore[arg-type]
    assert legend(figure) == ["winner", "finished", "stopped early", "failed"]


def test_cost_is_drawn_only_where_it_differs() -> None:
    figure = pareto_figure(ROWS, METRIC, ROWS[0])
    assert figure is not None
    assert any(list(line.get_xdata()) == [1, 2] for line in figure.axes[0].lines)  # type: ignore[arg-type]
    same = [trial(n, [0.1 * n], lookups=2) for n in (1, 2)]
    assert pareto_figure(leaderboard(same, METRIC, campaign()), METRIC) is None


@pytest.mark.parametrize(
    ("records", "space", "names"),
    [
        ([], {}, set()),
        ([trial(1, [], status="failed")], {}, set()),
        ([trial(1, [0.1])], {}, {"curves"}),
        ([trial(1, [0.0]), trial(2, [0.0])], {}, {"curves", "against_k", "parallel", "cost"}),
        (grid_ledger(), {}, {"heat_map", "against_k", "importance", "cost", "parallel", "curves"}),
        (random_ledger(), RANDOM, {"heat_map", "against_k", "importance", "cost", "parallel", "curves"}),
    ],
    ids=["none", "failed", "one", "two alike", "grid", "random"],
)
def test_all_that_has_something_to_show_is_drawn(
    records: list[TrialRecord], space: dict[str, object], names: set[str]
) -> None:
    figures = campaign_figures(records, METRIC, campaign(**space))
    assert set(figures) == names
    for figure in figures.values():
        figure.savefig(io.BytesIO(), dpi=40)

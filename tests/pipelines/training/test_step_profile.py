"""A step's profile on its way from the worker's clock to a table and a plot."""

from __future__ import annotations

import pytest
import torch

from mind_core.profiling import PHASES, StepTimes
from pipelines.training.step_profile import phases, profile_columns, profile_figure, profile_metrics, profile_table


def given_metrics() -> dict[str, float]:
    times = StepTimes(torch.device("cpu"))
    times.steps = 4
    times.seconds |= {"forward": 0.1, "backward": 0.3}
    return profile_metrics(times) | {"train/loss": 2.0}


def test_milliseconds_are_of_one_step() -> None:
    found = phases(given_metrics())
    assert list(found) == list(PHASES)
    assert found["forward"] == pytest.approx(25.0)
    assert found["backward"] == pytest.approx(75.0)
    assert phases({"train/loss": 2.0}) == {}


def test_shares_add_up_to_one() -> None:
    columns = profile_columns(phases(given_metrics()))
    assert sum(columns["share"]) == pytest.approx(1.0)
    assert profile_table(phases(given_metrics())).row_count == len(PHASES) + 1


def test_the_plot_has_a_bar_a_phase_and_says_the_whole() -> None:
    (axes,) = profile_figure(phases(given_metrics())).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(PHASES)
    assert "100.0 ms" in axes.get_title()

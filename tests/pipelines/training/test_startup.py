"""The marks of a start: parts that add up, across a pickle."""

from __future__ import annotations

import pickle

import pytest

from pipelines.training.startup import Timeline


def test_the_parts_add_up_from_the_process_on() -> None:
    timeline = Timeline(began=100.0, moments=[("imports", 102.5), ("ray", 106.0)])
    carried = pickle.loads(pickle.dumps(timeline))
    carried.moments.append(("workers", 110.0))
    assert carried.metrics() == pytest.approx(
        {"startup/imports": 2.5, "startup/ray": 3.5, "startup/workers": 4.0, "startup/total": 10.0}
    )


def test_it_begins_with_this_process() -> None:
    timeline = Timeline()
    timeline.mark("imports")
    assert timeline.metrics()["startup/total"] > 0

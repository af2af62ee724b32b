"""How many trials fit a cluster at a time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.tuning.concurrency import concurrent_trials
from pipelines.tuning.config import Resources


def room(*nodes: tuple[float, float], **resources: Any) -> int:
    """nodes : CPUs and GPUs of each."""
    given = [{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus} for cpus, gpus in nodes]
    return concurrent_trials(Resources(**resources), given, "tune.yaml")


def refusal(*nodes: tuple[float, float], **resources: Any) -> str:
    with pytest.raises(UserError) as error:
        room(*nodes, **resources)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("cpus", "of", "trials"),
    [(1, 4, 4), (2, 5, 2), (0.1, 1, 10), (0.1, 0.3, 3), (0.7, 2.1, 3), (0.35, 1, 2), (1 / 3, 3, 9), (1.5, 4, 2)],
)
def test_as_many_trials_as_the_cores_have_room_for_fractions_too(cpus: float, of: float, trials: int) -> None:
    assert room((of, 0), cpus=cpus) == trials


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "trials"),
    [((16, 2), 1, 1, 2), ((16, 2), 1, 0.25, 8), ((4, 2), 1, 0.1, 4), ((1, 8), 0.1, 0.8, 10), ((8, 1), 1, 0, 8)],
)
def test_the_scarcer_of_cores_and_gpus_decides(
    node: tuple[float, float], cpus: float, gpus: float, trials: int
) -> None:
    assert room(node, cpus=cpus, gpus=gpus) == trials


def test_a_gpu_is_not_made_up_of_rests_on_several_nodes() -> None:
    assert room((8, 1), (8, 1), gpus=0.6) == 2
    assert "the cluster has 8 CPUs and 0.5 GPUs + 8 CPUs and 0.5 GPUs" in refusal((8, 0.5), (8, 0.5), gpus=1)


def test_every_worker_fits_a_node_but_the_workers_of_a_trial_may_lie_on_several() -> None:
    assert room((3, 0), (3, 0), cpus=2) == 2, "not 6 / 2"
    assert room((3, 0), (3, 0), cpus=2, workers=2) == 1
    assert room((4, 0), (2, 0), (1, 0), cpus=2, workers=3) == 1
    assert room((4, 0), (4, 0), cpus=1, workers=3) == 2


def test_a_node_without_cores_has_room_for_nobody() -> None:
    assert concurrent_trials(Resources(), [{}, {"CPU": 2.0, "memory": 1e9}], "tune.yaml") == 2


def test_fewer_may_be_asked_for_than_fit() -> None:
    assert [room((4, 0), concurrent=number) for number in (1, 4)] == [1, 4]


def test_more_than_fit_is_refused_with_the_number_that_fits_and_what_the_cluster_has() -> None:
    assert refusal((4, 0), (2, 0), workers=2, concurrent=4) == (
        "tune.yaml: resources.concurrent=4: there is room for 3 "
        "(a trial needs 2 x 1 CPUs, the cluster has 4 CPUs + 2 CPUs)"
    )


def test_a_trial_that_does_not_fit_is_refused_with_a_way_out() -> None:
    assert refusal((2, 0), workers=3) == (
        "tune.yaml: resources: a trial needs 3 x 1 CPUs, the cluster has 2 CPUs; ask for less, e.g. "
        "--set resources.workers=1, or join a larger cluster"
    )
    assert "a trial needs 1 x 1 CPUs and 0.5 GPUs, the cluster has 2 CPUs" in refusal((2, 0), gpus=0.5)


@given(
    hundredths=st.integers(1, 400),
    nodes=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    workers=st.integers(1, 3),
)
def test_fractions_count_as_exactly_as_whole_hundredths(hundredths: int, nodes: list[int], workers: int) -> None:
    trials = sum(100 * cores // hundredths for cores in nodes) // workers
    clusters = [(float(cores), 0.0) for cores in nodes]
    if trials:
        assert room(*clusters, cpus=hundredths / 100, workers=workers) == trials
    else:
        assert "resources: a trial needs" in refusal(*clusters, cpus=hundredths / 100, workers=workers)

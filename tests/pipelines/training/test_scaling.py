"""What the workers of a training ask a cluster for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.training.scaling import scaling_of

Configured = Callable[..., Config]


@pytest.fixture
def settings(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    monkeypatch.setattr("pipelines.training.scaling.cores", lambda: 8)
    monkeypatch.delenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", raising=False)

    def make(address: str | None = None, autoscaling: bool = False, **train: object) -> Config:
        values = configured("log.csv").model_dump()
        values["ray"] |= {"address": address, "autoscaling": autoscaling}
        return Config.model_validate(values | {"train": values["train"] | train})

    return make


def test_a_machine_of_ones_own_is_shared_out(settings: Callable[..., Config]) -> None:
    config = settings(workers=2)
    found = scaling_of(config, {"CPU": 8.0})
    assert (found.threads, found.use_gpu) == (4, False)
    assert found.to_ray(config, "memory").resources_per_worker == {"CPU": 1.0}
    assert scaling_of(config, {"CPU": 2.0}).to_ray(config, "stream").resources_per_worker == {"CPU": 0.5}


def test_on_a_cluster_a_thread_is_a_cpu(settings: Callable[..., Config]) -> None:
    config = settings("head:6379", workers=2, threads=4)
    asked = scaling_of(config, {"CPU": 8.0}).to_ray(config, "memory")
    assert (asked.num_workers, asked.resources_per_worker) == (2, {"CPU": 4.0})
    assert scaling_of(settings("head:6379", workers=2), {"CPU": 2.0}).threads == 1


def test_gpus_are_used_where_every_worker_gets_one(settings: Callable[..., Config]) -> None:
    config = settings("head:6379", workers=2)
    assert scaling_of(config, {"CPU": 4.0, "GPU": 2.0}).use_gpu
    assert not scaling_of(config, {"CPU": 4.0, "GPU": 1.0}).use_gpu
    assert not scaling_of(settings(workers=2, use_gpu=False), {"CPU": 4.0, "GPU": 2.0}).use_gpu


@pytest.mark.parametrize(
    ("train", "has", "message"),
    [
        (
            {"workers": 3},
            {"CPU": 2.0},
            r"^train.workers=3: the cluster has 2 CPUs; use at most 2 workers; if .*autoscal",
        ),
        ({"workers": 2, "threads": 4}, {"CPU": 4.0}, r"^train.workers=2 of 4 threads: .* at most 1 worker"),
        ({"workers": 2, "use_gpu": True}, {"CPU": 4.0, "GPU": 1.0}, r"^train.use_gpu=true: 2 .* has 1"),
    ],
)
def test_what_is_not_there_is_refused(
    settings: Callable[..., Config], train: dict[str, object], has: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        scaling_of(settings("head:6379", **train), has)


def test_a_cpu_to_read_with_is_part_of_it(settings: Callable[..., Config]) -> None:
    config = settings("head:6379", workers=2)
    found = scaling_of(config, {"CPU": 2.0})
    found.to_ray(config, "memory")
    with pytest.raises(UserError, match=r"a CPU to read with are 3, the cluster has 2$"):
        found.to_ray(config, "stream")


def test_a_cluster_that_grows_is_asked_for_what_it_does_not_have(settings: Callable[..., Config]) -> None:
    config = settings("head:6379", autoscaling=True, workers=64, threads=8, use_gpu=True)
    asked = scaling_of(config, {"CPU": 0.0}).to_ray(config, "stream")
    assert (asked.num_workers, asked.resources_per_worker) == (64, {"CPU": 8.0, "GPU": 1})


def test_an_elastic_run_needs_the_least_only(settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "7")
    config = settings("head:6379", workers=4, min_workers=1)
    assert scaling_of(config, {"CPU": 1.0}).to_ray(config, "memory").num_workers == (1, 4)
    with pytest.raises(ValidationError, match=r"must be <= train.workers, 2"):
        settings(workers=2, min_workers=3)

"""Which model is served, and what becomes of it when the alias moves: whatever fails, the old one stays."""

import logging
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.schema import Config
from pipelines.endpoint import follow
from pipelines.endpoint.follow import Current, Follower, Source, find_source, limits_of, opened
from pipelines.errors import UserError
from tests.pipelines.small_model import save_small


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate(
        {"name": "tiny", "home": str(tmp_path / "home"), "data": {"events": {"path": "log.csv"}},
         "serve": {"max_n": 50, "max_history": 60, "max_body": 7_000, "poll_s": 0.1}}
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_small(tmp_path / "one")


class Registry:
    """Stands in for MLflow's: where the alias points."""

    def __init__(self) -> None:
        self.found: Source | Exception | None = None

    def __call__(self, config: Config) -> Source | None:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = Registry()
    monkeypatch.setattr(follow, "aliased", registry)
    return registry


class Seen:
    """What a follower told."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.switched: list[str | None] = []
        self.failures = 0
        self.follower = Follower(config, opened(config, Source(folder, "1", True)), self.switch, self.fail)

    def switch(self, current: Current) -> None:
        self.switched.append(current.source.version)

    def fail(self) -> None:
        self.failures += 1


def test_a_folder_is_served_as_it_is(config: Config, folder: Path) -> None:
    assert find_source(config, str(folder)) == Source(folder.resolve())


def test_without_a_model_the_alias_comes_first(config: Config, folder: Path, registry: Registry) -> None:
    registry.found = Source(folder, "4", follows=True)
    assert find_source(config) == registry.found


def test_without_alias_or_dataset_it_is_said(config: Config, registry: Registry) -> None:
    with pytest.raises(UserError, match="no dataset"):
        find_source(config)


def test_limits_are_those_of_the_settings(config: Config) -> None:
    limits = limits_of(config)
    assert (limits.n, limits.history, limits.items, limits.body) == (50, 60, 60, 7_000)


def test_a_version_that_is_there_already_is_left_alone(config: Config, folder: Path, registry: Registry) -> None:
    seen = Seen(config, folder)
    registry.found = Source(folder, "1", True)
    seen.follower.look()
    registry.found = None  # the alias is gone
    seen.follower.look()
    assert (seen.switched, seen.failures) == ([], 0)


def test_another_version_takes_over_once(config: Config, folder: Path, registry: Registry, tmp_path: Path) -> None:
    seen = Seen(config, folder)
    registry.found = Source(save_small(tmp_path / "two", seed=1), "2", True)
    for _ in range(3):
        seen.follower.look()
    assert (seen.switched, seen.failures) == (["2"], 0)
    assert seen.follower.current.answerer.model.card.name == "small-1"


@pytest.mark.parametrize("error", [UserError("the store is away"), OSError("no disk"), KeyError("x")])
def test_whatever_fails_the_old_model_stays_and_it_is_said_once(
    config: Config, folder: Path, registry: Registry, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    seen = Seen(config, folder)
    registry.found = error
    with caplog.at_level(logging.WARNING, "ray.serve"):
        for _ in range(3):
            seen.follower.look()
    assert (seen.switched, seen.failures) == ([], 3)
    assert caplog.text.count("cannot be followed") == 1
    registry.found = Source(folder, "2", True)
    seen.follower.look()
    assert seen.switched == ["2"]


def test_a_broken_version_is_not_served(config: Config, folder: Path, registry: Registry, tmp_path: Path) -> None:
    seen = Seen(config, folder)
    broken = save_small(tmp_path / "broken", seed=1)
    (broken / "weights.safetensors").write_bytes(b"x")
    registry.found = Source(broken, "2", True)
    seen.follower.look()
    assert (seen.switched, seen.failures) == ([], 1)


def test_the_thread_looks_by_itself_and_ends(config: Config, folder: Path, registry: Registry) -> None:
    seen = Seen(config, folder)
    registry.found = Source(folder, "2", True)
    seen.follower.start()
    for _ in range(200):
        if seen.switched:
            break
        seen.follower.ended.wait(0.05)
    seen.follower.stop()
    seen.follower.thread.join(timeout=10)
    assert seen.switched == ["2"]
    assert not seen.follower.thread.is_alive()


def test_settings_of_serving_are_bounded() -> None:
    base: dict[str, Any] = {"name": "t", "data": {"events": {"path": "x"}}}
    for wrong in ({"port": 0}, {"batch": 129}, {"replicas": 0}, {"replicas": 3, "max_replicas": 2}, {"cpus": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Config.model_validate({**base, "serve": wrong})

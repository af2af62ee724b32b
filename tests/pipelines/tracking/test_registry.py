"""Registered models: versions, aliases, and a store that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from pipelines.errors import UserError
from pipelines.tracking.registry import CHALLENGER, CHAMPION, model_by_alias, move_alias, register_model, tag_version

TAGS = {"mind.model": "/models/a", "mind.dataset": "f" * 64, "mind.run": "r1"}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store for all tests here: each has a registered model of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def stored(uri: str) -> Callable[[], str]:
    """Make a model in the store, without files."""
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.create_experiment("models")

    def make() -> str:
        run = client.create_run(experiment)
        return f"models:/{client.create_logged_model(experiment, 'retriever', source_run_id=run.info.run_id).model_id}"

    return make


def test_a_registered_model_is_found_by_its_alias(
    uri: str, stored: Callable[[], str], capfd: pytest.CaptureFixture[str]
) -> None:
    model = stored()
    version = register_model(uri, model, "shop", CHALLENGER, TAGS)
    found = model_by_alias(uri, "shop", CHALLENGER)
    assert found is not None
    assert (found.name, found.version, found.model_uri, found.uri) == ("shop", version, model, "models:/shop/1")
    assert (found.folder, found.fingerprint, found.run_id) == (Path("/models/a"), "f" * 64, "r1")
    assert model_by_alias(uri, "shop", CHAMPION) is None
    assert model_by_alias(uri, "nobody", CHALLENGER) is None
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_the_dashboard_links_the_model_to_its_version_and_run(uri: str, stored: Callable[[], str]) -> None:
    model = stored()
    register_model(uri, model, "linked", CHALLENGER, {})
    client = mlflow.MlflowClient(uri, uri)
    logged = client.get_logged_model(model.removeprefix("models:/"))
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "linked", "version": 1}], "as MLflow writes it"
    found = model_by_alias(uri, "linked", CHALLENGER)
    assert found is not None
    assert found.run_id == logged.source_run_id, "MLflow's own, where no tag says it"
    assert (found.folder, found.fingerprint) == (None, None)


def test_a_model_registered_again_stays_its_version_and_takes_the_alias_back(
    uri: str, stored: Callable[[], str]
) -> None:
    # given a first model, and a second that took the alias
    first, second = stored(), stored()
    assert register_model(uri, first, "twice", CHALLENGER, TAGS) == "1"
    assert register_model(uri, second, "twice", CHALLENGER, TAGS) == "2"
    # when the first campaign is resumed
    assert register_model(uri, first, "twice", CHALLENGER, {"mind.run": "r2"}) == "1"
    # then there are still two, and the new tags count
    assert len(mlflow.MlflowClient(uri, uri).search_model_versions("name = 'twice'")) == 2
    found = model_by_alias(uri, "twice", CHALLENGER)
    assert found is not None
    assert (found.version, found.tags) == ("1", TAGS | {"mind.run": "r2"})
    # and under another name it is a model of its own
    assert register_model(uri, first, "thrice", CHALLENGER, TAGS) == "1"


def test_an_alias_moves_and_goes_and_tags_are_replaced(uri: str, stored: Callable[[], str]) -> None:
    register_model(uri, stored(), "moved", CHALLENGER, {"a": "1"})
    register_model(uri, stored(), "moved", CHAMPION, {})
    move_alias(uri, "moved", CHAMPION, "1")
    move_alias(uri, "moved", CHALLENGER, None)
    champion = model_by_alias(uri, "moved", CHAMPION)
    assert champion is not None
    assert champion.version == "1"
    assert model_by_alias(uri, "moved", CHALLENGER) is None
    tag_version(uri, champion, {"a": "2", "b": "3"})
    again = model_by_alias(uri, "moved", CHAMPION)
    assert again is not None
    assert again.tags == {"a": "2", "b": "3"}


def test_a_registry_named_by_the_environment_is_left_alone(
    uri: str, stored: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/other.db")
    register_model(uri, stored(), "ours", CHALLENGER, {})
    assert model_by_alias(uri, "ours", CHALLENGER) is not None
    assert not (tmp_path / "other.db").exists()


def test_asking_makes_no_database(tmp_path: Path) -> None:
    assert model_by_alias(f"sqlite:///{tmp_path}/mlflow.db", "shop", CHAMPION) is None
    assert not list(tmp_path.iterdir())


def test_mistakes_are_one_line(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for attempt, text in (
        (
            lambda: register_model(uri, "models:/m-0", "none", CHALLENGER, {}),
            "models:/m-0: cannot be registered as none",
        ),
        (lambda: model_by_alias(uri, "a/b", CHALLENGER), "'a/b': no name for a registered model; .* neither / nor :"),
        (lambda: model_by_alias("http://ann:secret@127.0.0.1:9", "shop", CHAMPION), r"MLflow's store http://\*\*\*@"),
    ):
        with pytest.raises(UserError, match=text) as error:
            attempt()
        assert "\n" not in str(error.value)
        assert "secret" not in str(error.value)
    assert model_by_alias(uri, "none", CHALLENGER) is None, "and nothing is left behind"

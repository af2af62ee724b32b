"""The champion goes only for a challenger that is surely better, and what was decided is on record."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from typer.testing import CliRunner

import pipelines.evaluation.promote
from jobs.cli import app
from mind_core.inference import PopularityRetriever
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.evaluation.lists import ListReport
from pipelines.evaluation.promote import FIGURES, promote
from pipelines.evaluation.report import Difference, ModelReport, Report
from pipelines.models import serving
from pipelines.models.artifact import load_card, load_model, save_model
from pipelines.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS, model_by_alias, move_alias, register_model
from pipelines.tracking.run import open_run
from pipelines.tracking.store import store_of
from pipelines.training.data import load_items
from pipelines.training.train import SERVING
from tests.pipelines.planted import configure, save_untrained

pytestmark = pytest.mark.ray

BETTER = Difference("default", "recall@20", 0.0123, 0.005, 0.0199)
SAME = Difference("default", "recall@20", 0.0004, -0.0010, 0.0019)
WORSE = Difference("default", "recall@20", -0.0123, -0.0199, -0.005)
NONE = Difference("default", "recall@20", 0.0, 0.0, 0.0)

Register = Callable[..., str]


@pytest.fixture(scope="module")
def config(planted_home: Path, planted_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The planted data set in a home folder, and store, of this module."""
    home = tmp_path_factory.mktemp("promote")
    (home / "datasets").symlink_to(planted_home / "datasets")
    return configure(home, planted_log)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model of each test's own."""
    return re.sub(r"\W+", "-", request.node.name)


@pytest.fixture
def register(config: Config, name: str) -> Register:
    """Register a model, without files in the store, under an alias."""

    def make(alias: str, folder: Path | str = "/nowhere", fingerprint: str | None = None) -> str:
        with open_run(config, "train", "some") as run:
            client = mlflow.MlflowClient(run.uri, run.uri)
            experiment = client.get_run(run.run_id).info.experiment_id
            model = client.create_logged_model(experiment, "retriever", source_run_id=run.run_id)
        own = run.run_id if folder == "/nowhere" else load_card(Path(folder)).run_id
        tags = {
            "mind.model": str(folder),
            "mind.dataset": fingerprint or Dataset.open(config.dataset_path).manifest.fingerprint,
            "mind.run": str(own),
        }
        return register_model(run.uri, f"models:/{model.model_id}", name, alias, tags)

    return make


@pytest.fixture(scope="module")
def untrained(config: Config) -> Path:
    return save_untrained(config, run_id="r0")


@pytest.fixture
def outcome(config: Config, monkeypatch: pytest.MonkeyPatch) -> Callable[[Difference], list[dict[str, Any]]]:
    """Let evaluations come out so; returns the list in which their arguments are kept."""

    def set_to(difference: Difference) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def pretended(_: Config, **given: Any) -> Report:
            calls.append(given)
            lists = ListReport(20, None, 0.0, [], [], [], [])
            model = ModelReport("m", "m", "/nowhere", None, None, {}, {}, [], [], [], lists, [], [], None, [])
            return Report("d", "f", "test", "keep", "recall@20", [20], 1, 1, {}, 0, 0, 1, [model], [difference], [])

        monkeypatch.setattr(pipelines.evaluation.promote, "evaluate", pretended)
        return calls

    return set_to


def aliases(config: Config, name: str) -> dict[str, str]:
    uri = store_of(config)
    return {
        alias: found.version
        for alias in (CHALLENGER, CHAMPION, PREVIOUS)
        if (found := model_by_alias(uri, name, alias)) is not None
    }


def tags_of(config: Config, name: str, version: str) -> dict[str, str]:
    uri = store_of(config)
    return dict(mlflow.MlflowClient(uri, uri).get_model_version(name, version).tags)


def test_without_a_challenger_the_way_to_one_is_named(config: Config, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: no version has the alias challenger; make one with: mind tune"):
        promote(config, name)


def test_a_better_challenger_takes_the_place_and_the_old_champion_stays_within_reach(
    config: Config, name: str, register: Register, outcome: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    register(CHAMPION)
    register(CHALLENGER)
    calls = outcome(BETTER)
    decision = promote(config, name)
    assert calls == [{"model": f"models:/{name}/2", "against": (f"models:/{name}/1",)}]
    assert decision.promoted
    assert decision.difference == BETTER
    assert decision.champion is not None
    assert (decision.challenger.version, decision.champion.version) == ("2", "1")
    assert decision.reason == (
        "better than version 1: recall@20 +0.0123 (95 % between +0.0050 and +0.0199); champion is version 2, "
        "was version 1"
    )
    assert aliases(config, name) == {CHAMPION: "2", PREVIOUS: "1"}
    assert capsys.readouterr().out == f"{name} version 2 promoted: {decision.reason}\n"


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (SAME, "not told apart from version 1: recall@20 +0.0004 (95 % between -0.0010 and +0.0019); "),
        (WORSE, "worse than version 1: recall@20 -0.0123 (95 % between -0.0199 and -0.0050); "),
        (NONE, "not told apart from version 1: recall@20 +0.0000 (95 % between +0.0000 and +0.0000); "),
    ],
    ids=["same", "worse", "none"],
)
def test_a_challenger_that_is_not_surely_better_is_refused_and_told_why(
    config: Config, name: str, register: Register, outcome: Callable[..., Any], difference: Difference, words: str
) -> None:
    register(CHAMPION)
    register(CHALLENGER)
    outcome(difference)
    decision = promote(config, name)
    assert not decision.promoted
    assert decision.reason == words + "champion stays version 1"
    assert aliases(config, name) == {CHAMPION: "1", CHALLENGER: "2"}
    assert tags_of(config, name, "2")["mind.decision"] == "refused"


@pytest.mark.parametrize(
    ("difference", "end"),
    [(BETTER, "champion is version 1, the first"), (SAME, "there is no champion yet")],
    ids=["better", "same"],
)
def test_the_first_champion_has_to_beat_popularity(
    config: Config, name: str, register: Register, outcome: Callable[..., Any], difference: Difference, end: str
) -> None:
    register(CHALLENGER)
    calls = outcome(difference)
    decision = promote(config, name)
    assert calls[0]["against"] == ()
    assert decision.promoted == (difference == BETTER)
    assert re.fullmatch(f"(better than|not told apart from) popularity: .*; {end}", decision.reason)
    assert aliases(config, name) == {CHAMPION if decision.promoted else CHALLENGER: "1"}


def test_a_challenger_that_is_the_champion_is_no_challenger_any_more(
    config: Config, name: str, register: Register
) -> None:
    # given what a promotion leaves that was stopped before its last line
    version = register(CHAMPION)
    move_alias(store_of(config), name, CHALLENGER, version)
    decision = promote(config, name)
    assert (decision.promoted, decision.reason) == (False, "it is the champion already")
    assert aliases(config, name) == {CHAMPION: "1"}


def test_models_of_another_dataset_are_not_compared(config: Config, name: str, register: Register) -> None:
    register(CHAMPION, fingerprint="f" * 64)
    register(CHALLENGER)
    with pytest.raises(UserError, match=r"the champion, version 1, .*another dataset .*f{12}, .*--replace$") as error:
        promote(config, name)
    assert "\n" not in str(error.value)
    register(CHALLENGER, fingerprint="e" * 64)
    with pytest.raises(UserError, match=r"the challenger, version 3, .*another dataset .*e{12}, .*mind tune"):
        promote(config, name)
    assert aliases(config, name) == {CHAMPION: "1", CHALLENGER: "3"}


def test_a_champion_can_be_replaced_without_a_comparison_and_that_is_on_record(
    config: Config, name: str, register: Register, outcome: Callable[..., Any]
) -> None:
    # given a challenger that was refused before
    register(CHAMPION)
    register(CHALLENGER)
    calls = outcome(WORSE)
    promote(config, name)
    decision = promote(config, name, replace=True)
    assert len(calls) == 1
    assert (decision.promoted, decision.difference) == (True, None)
    assert decision.reason == "without a comparison; champion is version 2, was version 1"
    assert aliases(config, name) == {CHAMPION: "2", PREVIOUS: "1"}
    tags = tags_of(config, name, "2")
    assert (tags["mind.decision"], tags["mind.decision.reason"]) == ("promoted", decision.reason)
    assert not any(tags[key] for key in FIGURES), "the figures of the refusal are gone"


def test_true_models_are_compared_and_both_sides_of_the_record_name_each_other(
    config: Config, name: str, register: Register, untrained: Path
) -> None:
    # given a champion with random weights, and popularity, which beats that
    popular = save_popularity(config, untrained)
    register(CHAMPION, untrained)
    register(CHALLENGER, popular)
    decision = promote(config, name)
    assert decision.promoted, decision.reason
    tags = tags_of(config, name, "2")
    report = json.loads((config.home_path / "evaluations" / f"{popular.name}-test" / "report.json").read_text())
    found = report["differences"][0]
    assert [float(tags[f"mind.decision.{key}"]) for key in ("mean", "low", "high")] == pytest.approx(
        [found["mean"], found["low"], found["high"]], abs=1e-6
    )
    assert (tags["mind.decision.against"], tags["mind.decision.metric"]) == ("version 1", "recall@20")
    run = mlflow.MlflowClient(store_of(config)).get_run(tags["mind.decision.run"])
    assert run.data.tags["mind.stage"] == "evaluate"
    assert run.data.tags["mind.decision.version"] == f"models:/{name}/2"
    assert run.data.tags["mind.decision.reason"] == decision.reason


def test_a_model_whose_folder_is_gone_or_made_anew_comes_from_the_store(
    config: Config, name: str, untrained: Path
) -> None:
    # given a version whose folder now holds another run's model
    saved = load_model(untrained)
    with open_run(config, "train", "some") as run:
        uri = run.log_model("retriever", untrained, SERVING, serving.signature(saved), serving.example(saved))
    assert uri is not None
    register_model(run.uri, uri, name, CHALLENGER, {"mind.model": str(untrained), "mind.run": run.run_id})
    # then that model is evaluated which was registered, and popularity beats it
    decision = promote(config, name)
    assert decision.reason.startswith("worse than popularity: ")
    evaluated = json.loads((config.home_path / "evaluations" / f"{untrained.name}-test" / "report.json").read_text())
    assert Path(evaluated["models"][0]["path"]).is_relative_to(config.home_path / "downloads")


def test_the_command_passes_the_name_and_whether_to_compare(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(pipelines.evaluation.promote, "promote", lambda config, **given: calls.append(given))
    for options in ([], ["--name", "shop", "--replace"]):
        assert CliRunner().invoke(app, ["promote", str(conf), *options]).exit_code == 0
    assert calls == [{"name": None, "replace": False}, {"name": "shop", "replace": True}]


def save_popularity(config: Config, like: Path) -> Path:
    """The baseline as an artifact, beside another one of the same dataset."""
    dataset = Dataset.open(config.dataset_path)
    _, counts, _ = load_items(dataset)
    card = load_card(like)
    card = replace(
        card, name="popular", preset="popularity", model={**card.model, "encoder": "popularity", "interests": 1}
    )
    folder = config.home_path / "models" / card.name
    save_model(folder, card, None, PopularityRetriever(counts, config.model.max_history), dataset)
    return folder

"""What MLflow's pages say by themselves: descriptions, model cards, names, and no path of this machine."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mlflow
import pandas as pd
import pytest

from pipelines.config.schema import Config
from pipelines.config.titles import run_title
from pipelines.models import serving
from pipelines.models.artifact import load_card, load_model
from pipelines.models.card_text import Outcome, card_text
from pipelines.tracking.notes import NOTE, best_validation, learning_curve
from pipelines.tracking.registry import RegisteredVersion, register_model, tell_decision
from pipelines.tracking.run import Tracker, open_run
from pipelines.tracking.store import store_of
from pipelines.training.train import SERVING
from tests.pipelines.small_model import save_small


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config.model_validate(
        {
            "name": "tale",
            "home": str(tmp_path_factory.mktemp("home")),
            "data": {"events": {"path": "log.csv"}},
            "model": {"interests": 2},
            "tracking": {"system_metrics": False},
        }
    )


@pytest.fixture(scope="module")
def client(config: Config) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(store_of(config), store_of(config))


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """A training that is over, with its model."""
    folder = save_small(tmp_path_factory.mktemp("models") / "small")
    saved = load_model(folder)
    with open_run(config, "train", run_title(config)) as tracker:
        tracker.log_model(
            "small-0", folder, SERVING, serving.signature(saved), serving.example(saved), step=3, card="# A card"
        )
        tracker.log_model_metrics({"validation/best/recall@20": 0.5}, 3, ("tale", "f" * 64))
        tracker.describe("What it is.")
    return tracker


def model_of(client: mlflow.MlflowClient, run: Tracker) -> Any:
    uri = client.get_run(run.run_id).data.tags["mind.model_uri"]
    return client.get_logged_model(uri.removeprefix("models:/"))


def test_a_run_has_a_name_for_people_and_a_description(run: Tracker, client: mlflow.MlflowClient) -> None:
    found = client.get_run(run.run_id)
    assert found.info.run_name == "default: K=2"
    assert found.data.tags[NOTE] == "What it is."


def test_the_experiment_opens_on_runs_and_one_of_an_earlier_version_too(
    config: Config, run: Tracker, tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(store_of(config))
    kind = {"mlflow.experimentKind": "custom_model_development"}
    experiment = client.get_experiment_by_name("tale")
    assert experiment.tags.items() >= kind.items()
    old = config.model_copy(update={"name": "old"})
    number = client.create_experiment("old", tmp_path.as_uri())
    with open_run(old, "train", "x"):
        assert client.get_experiment(number).tags.items() >= kind.items()


def test_an_experiment_has_a_description_and_keeps_one_that_somebody_wrote(
    config: Config, run: Tracker, tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(store_of(config))
    experiment = client.get_experiment_by_name("tale")
    assert experiment.tags[NOTE].startswith("Datasets, trainings, tests and campaigns of tale.")
    client.set_experiment_tag(experiment.experiment_id, NOTE, "Ours.")
    with open_run(config, "train", "x"):
        assert client.get_experiment(experiment.experiment_id).tags[NOTE] == "Ours."


def test_a_model_has_a_card_a_dataset_and_says_what_logged_it(run: Tracker, client: mlflow.MlflowClient) -> None:
    model = model_of(client, run)
    assert model.name == "small-0"
    assert model.tags[NOTE] == "# A card"
    assert model.tags["mlflow.source.name"] == "mind train"
    measured = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
    assert measured["validation/best/recall_at_20"] == (0.5, "tale")


def test_an_mlmodel_names_no_path_of_this_machine_and_is_loaded_all_the_same(
    run: Tracker, client: mlflow.MlflowClient, config: Config, tmp_path: Path
) -> None:
    place = Path(model_of(client, run).artifact_location.removeprefix("file://"))
    text = (place / "MLmodel").read_text()
    assert not [word for word in text.split() if "/" in word and Path(word.strip("'\"")).is_absolute()]
    assert "model_code_path: serving.py" in text
    mlflow.set_tracking_uri(store_of(config))
    try:
        loaded = mlflow.pyfunc.load_model(f"models:/{model_of(client, run).model_id}")
    finally:
        mlflow.set_tracking_uri(None)
    assert len(loaded.predict(pd.DataFrame({"history": [[101, 105]]}))["items"][0]) == 20


def test_the_input_example_has_all_profile_columns(run: Tracker, client: mlflow.MlflowClient) -> None:
    place = Path(model_of(client, run).artifact_location.removeprefix("file://"))
    example = pd.read_json(place / "input_example.json", orient="split")
    assert set(example) == {"history", "group", "vip", "level", "code", "since", "tags", "age"}


def test_a_new_card_reaches_the_versions_and_a_decision_stays_at_their_head(
    run: Tracker, client: mlflow.MlflowClient, config: Config
) -> None:
    uri = store_of(config)
    number = register_model(uri, f"models:/{model_of(client, run).model_id}", "tale", "challenger", {})
    version = RegisteredVersion("tale", number, "")
    assert client.get_model_version("tale", number).description == "# A card"
    assert "mind promote" in client.get_registered_model("tale").description
    tell_decision(uri, version, "promoted: better")
    run.describe_model("# Another card")
    tell_decision(uri, version, "refused: worse")
    assert client.get_model_version("tale", number).description == "**Decision:** refused: worse\n\n# Another card"
    assert model_of(client, run).tags[NOTE] == "# Another card"
    assert "model_card.md" in [each.path for each in client.list_artifacts(run.run_id)]


def test_a_run_that_goes_on_is_no_longer_marked_as_failed(config: Config, client: mlflow.MlflowClient) -> None:
    with pytest.raises(ValueError, match="no memory"), open_run(config, "tune", "campaign") as first:
        raise ValueError("no memory")
    assert client.get_run(first.run_id).data.tags["mind.failure"] == "ValueError: no memory"
    with open_run(config, "tune", "campaign", run_id=first.run_id) as second:
        assert second.run_id == first.run_id
        assert "mind.failure" not in client.get_run(first.run_id).data.tags


def test_the_learning_curve_comes_first_and_single_numbers_last() -> None:
    report = {"epoch": 1.0, "train/loss": 2.0, "validation/ndcg@20": 0.1, "routing/x": 1.0, "startup/ray": 3.0}
    names = sorted([*report, *learning_curve(report, "ndcg@20"), *best_validation(report), "test/recall@20"])
    assert [name for name in names if "/" in name][:2] == ["curve/loss", "curve/validation ndcg@20"]
    assert len(best_validation(report)) == 2


def test_titles_say_what_differs_from_the_preset_the_letters_of_the_paper_first(config: Config) -> None:
    def title(**sections: Any) -> str:
        values = {"name": "x", "data": {"events": {"path": "l"}}, **sections}
        return run_title(Config.model_validate(values))

    assert title() == "default"
    assert title(optim={"learning_rate": 0.5}, model={"interests": 2, "iterations": 2}) == (
        "default: K=2, r=2, learning_rate=0.5"
    )
    many = {"interests": 2, "iterations": 2, "dim": 8, "max_history": 9, "hidden": [8], "init_std": 0.5}
    assert title(model=many) == "default: K=2, r=2, d=8, L=9 and 2 more"


def test_a_card_says_data_figures_by_band_limits_and_how_to_serve(tmp_path: Path) -> None:
    card = load_card(save_small(tmp_path / "small"))
    before = card_text(card, "Dataset shop: 9 events.", "recall@20", ["it fell"])
    assert "Not yet tested" in before
    assert "**Look again:** it fell" in before
    tested = Outcome("full ranking", {"recall@20": 0.25}, {"recall@20": (0.2, 0.3)},
                     [("recall@20 by history", "users", [("1-4", 1200, 0.5)])], ["ahead of popularity"])  # fmt: skip
    text = card_text(card, "Dataset shop: 9 events.", "recall@20", tested=tested)
    for part in ("Dataset shop", "| recall@20 | 0.2500 | 0.2000 to 0.3000 |", "| 1-4 | 1,200 | 0.5000 |",
                 "- ahead of popularity", "## Intended use", "## Limits", 'mind.load("mind_home/models/small-0")',
                 "user group (categorical)", "\n\nrecall@20 by history:\n\n| band | users | value |"):  # fmt: skip
        assert part in text
    popular = cast(Any, SimpleNamespace(**{**vars(card), "config": SimpleNamespace(
        encoder="popularity", dim=1, interests=1, max_history=1)}))  # fmt: skip
    assert "the rule that a model has to beat" in card_text(popular, "d", "recall@20")
    for interests, said in ((1, "One vector a user, by capsule"), (4, "Up to 4 vectors a user, by capsule")):
        routed = SimpleNamespace(encoder="mind", dim=1, interests=interests, max_history=1)
        changed = cast(Any, SimpleNamespace(**{**vars(card), "config": routed}))
        assert said in card_text(changed, "d", "recall@20")

"""Evaluation and recommendation: one ranking for all, beside popularity, distributed or not."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch

import pipelines.evaluate
from mind_core.evaluation import evaluate
from mind_core.inference import MINDRetriever
from mind_core.model import MIND
from pipelines.arrays import feature_specs, to_sequences, to_targets
from pipelines.artifact import FORMAT_VERSION, ModelCard, SavedModel, load_model, save_model
from pipelines.config import Config
from pipelines.dataset import Dataset
from pipelines.errors import UserError
from pipelines.load_config import resolved
from pipelines.models import find_model
from pipelines.recommend import recommend
from pipelines.report import Report, difference, popularity_bands
from pipelines.run_store import store_of
from pipelines.train_worker import build_model, load_data
from tests.pipelines.planted import configure

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def config(planted_home: Path, planted_log: Path) -> Config:
    """The planted data set with an untrained model in its home folder: what it knows does not matter here."""
    config = configure(planted_home, planted_log)
    dataset = Dataset.open(config.dataset_path)
    model = build_model(config.model, dataset, seed=3)
    data = load_data(dataset, dataset.table("train"), dataset.table("validation"))
    manifest = dataset.manifest
    card = ModelCard(
        format_version=FORMAT_VERSION,
        name="planted-default-0123456789",
        preset="default",
        model=resolved(config)["model"],
        items=manifest.item_rows,
        item_features=manifest.item_features,
        profile_features=manifest.profile_features,
        exclude_seen=False,
        dataset_fingerprint=manifest.fingerprint,
        run_id=None,
    )
    save_model(config.home_path / "models" / card.name, card, model, MINDRetriever.of(model, data.bags), dataset)
    return config


@pytest.fixture(scope="module")
def model(config: Config) -> SavedModel:
    return load_model(config.home_path / "models" / "planted-default-0123456789")


@pytest.fixture(scope="module")
def report(config: Config, model: SavedModel) -> Report:
    return pipelines.evaluate.evaluate(config, model=str(model.path))


def test_saving_and_loading_changes_nothing(config: Config, model: SavedModel) -> None:
    assert isinstance(model.retriever, MINDRetriever)
    fresh: MIND = build_model(config.model, Dataset.open(config.dataset_path), seed=3)
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, model.retriever.model.state_dict()[name]), name


def test_the_report_is_what_ranking_in_one_process_gives(config: Config, model: SavedModel, report: Report) -> None:
    table = Dataset.open(config.dataset_path).table("test")
    sequences = to_sequences(table, feature_specs(model.card.profile_features))
    everyone = torch.arange(len(sequences))
    found = evaluate(model.retriever, sequences, to_targets(table), everyone, report.cutoffs, exclude_seen=False)
    for name, values in found.metrics.items():
        assert report.models[0].metrics[name] == pytest.approx(float(values.mean()), abs=1e-12), name
    assert report.users == len(found.users)
    assert report.models[0].metrics["coverage@10"] == len(found.top_items[:, :10].unique()) / report.catalogue


def test_bands_add_up_to_the_whole(report: Report) -> None:
    for one in report.models:
        assert sum(band.size for band in one.by_history) == report.users
        whole = sum(band.size * band.metrics["ndcg@20"] for band in one.by_history) / report.users
        assert whole == pytest.approx(one.metrics["ndcg@20"])
        assert sum(band.size for band in one.by_popularity) == report.targets


def test_popularity_beside_the_model_is_the_most_frequent_items(config: Config, report: Report) -> None:
    dataset = Dataset.open(config.dataset_path)
    counts = dataset.items()["train_count"].to_numpy()
    top = set(np.argsort(-counts, kind="stable")[:10] + 2)
    targets = dataset.table("test")["targets"].to_pylist()
    hit_rate = np.mean([bool(top & set(items)) for items in targets])
    # ties count against the model, so the top 10 by index may be luckier than the reported figure, never less so
    assert report.models[-1].name == "popularity"
    assert report.models[-1].metrics["hit_rate@10"] <= hit_rate


def test_the_report_and_each_users_outcome_are_stored_and_tracked(config: Config, report: Report) -> None:
    folder = config.home_path / "evaluations" / "planted-default-0123456789-test"
    assert json.loads((folder / "report.json").read_text())["users"] == report.users
    users = pq.read_table(folder / "users.parquet")
    assert np.mean(users["ndcg@20"]) == pytest.approx(report.models[0].metrics["ndcg@20"])
    assert {path.name for path in folder.glob("*.png")} == {"bands.png", "coupling.png", "retrieved.png"}
    client = mlflow.MlflowClient(store_of(config))
    experiment = client.get_experiment_by_name("planted")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`mind.stage` = 'evaluate'")
    assert run.data.metrics["test/ndcg_at_20"] == pytest.approx(report.models[0].metrics["ndcg@20"])


def test_the_bootstrap_interval_holds_the_difference_and_is_repeatable() -> None:
    generator = np.random.default_rng(0)
    first = generator.random(400)
    second = first - 0.1 + 0.05 * generator.standard_normal(400)
    found = difference(first, second, "other")
    assert found == difference(first, second, "other")
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(0.1, abs=0.01)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.05 / 20, rel=0.15)


def test_popularity_bands_are_head_mid_tail_and_cold() -> None:
    counts = np.array([0, *range(100, 0, -1)])
    bands = popularity_bands(counts)
    assert [int((bands == band).sum()) for band in range(4)] == [2, 19, 79, 1]
    assert bands[1] == 0
    assert bands[0] == 3


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("youtube_dnn", "mind train CONF --preset youtube_dnn"),
        ("no/such/folder", "no model"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_the_way_out(config: Config, given: str, text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        find_model(config, Dataset.open(config.dataset_path), given)
    assert "\n" not in str(error.value)


def first_lists(lists: pa.Table, user: int) -> list[tuple[int, float]]:
    mine = lists.filter(pa.compute.equal(lists["user"], user))
    return list(zip(mine["id"].to_pylist(), mine["score"].to_pylist(), strict=True))


def test_every_way_to_a_list_gives_the_same_list(
    config: Config, model: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given the lists of training-time evaluation
    dataset = Dataset.open(config.dataset_path)
    table = dataset.table("test")
    sequences = to_sequences(table, feature_specs(model.card.profile_features))
    everyone = torch.arange(len(sequences))
    outcome = evaluate(model.retriever, sequences, to_targets(table), everyone, [20], exclude_seen=False)
    ids = np.array(model.item_ids)
    expected = [ids[items.numpy() - 2].tolist() for items in outcome.top_items]

    # then `mind recommend --all` over Ray and `--user` without it give them
    everybody = recommend(config, out=tmp_path / "all.parquet", model=str(model.path))
    assert everybody is not None
    lists = pq.read_table(everybody)
    users = dataset.vocabulary("users")["id"].take(table["user"]).to_pylist()
    for row in (0, 57, len(users) - 1):
        assert [item for item, _ in first_lists(lists, users[row])] == expected[row]
        alone = recommend(config, [str(users[row])], tmp_path / "one.csv", str(model.path))
        assert alone is not None
        assert pd.read_csv(alone)["id"].tolist() == expected[row]

    # and so do the raw ids and profile through the MLflow model
    from pipelines.serving import ServedRetriever

    raw = pd.read_parquet(configured_profile(config)).set_index("user_id")
    history = [ids[np.array(items) - 2].tolist() for items in table["items"].to_pylist()]
    request = pd.DataFrame({"history": history, "group": raw["group"].reindex(users).to_numpy()})
    served = ServedRetriever()
    served.model = model
    answer = served.predict(None, request, {"k": 20, "exclude_seen": False})  # type: ignore[arg-type]
    assert answer["items"].tolist() == expected


def configured_profile(config: Config) -> str:
    assert config.data.profile is not None
    return config.data.profile.path


def test_latest_infers_from_the_held_out_items_too(config: Config, model: SavedModel, tmp_path: Path) -> None:
    dataset = Dataset.open(config.dataset_path)
    row = dataset.table("test").slice(5, 1)
    user = dataset.vocabulary("users")["id"][row["user"][0].as_py()].as_py()
    whole = np.array(model.item_ids)[np.array(row["items"][0].as_py() + row["targets"][0].as_py()) - 2].tolist()
    profile = pa.table({"group": pd.read_parquet(configured_profile(config)).set_index("user_id")["group"][[user]]})
    expected = model.recommend(model.encode(pa.array([whole]), profile), 20, exclude_seen=False)
    found = recommend(config, [str(user)], tmp_path / "latest.jsonl", str(model.path), latest=True)
    assert found is not None
    assert pd.read_json(found, lines=True)["id"].tolist() == expected["id"].to_pylist()


def test_an_unknown_user_is_one_line_with_some_that_exist(config: Config, model: SavedModel) -> None:
    with pytest.raises(UserError, match=r"--user nobody: .* has no such user; some that it has: ") as error:
        recommend(config, ["nobody"], model=str(model.path))
    assert "\n" not in str(error.value)


def test_a_printed_list_is_grouped_by_interest(
    config: Config, model: SavedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    users = Dataset.open(config.dataset_path).vocabulary("users")["id"]
    recommend(config, [str(users[0].as_py())], model=str(model.path))
    printed = capsys.readouterr().out
    assert "interest" in printed
    assert "held out from the model" in printed

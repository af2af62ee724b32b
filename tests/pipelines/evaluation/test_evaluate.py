"""Evaluation: one ranking for all, beside popularity, whoever computes it."""

from __future__ import annotations

import json
from dataclasses import replace

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import mind_core.inference
import pipelines.evaluation.evaluate
from mind_core.evaluation import evaluate
from mind_core.inference import MINDRetriever
from mind_core.model import MIND
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import feature_specs, to_sequences, to_targets
from pipelines.evaluation.ranking import found_by, join_rankings, rank_slice
from pipelines.evaluation.report import Difference, Report, difference, popularity_bands
from pipelines.models.artifact import SavedModel, load_model
from pipelines.tracking.run import open_run
from pipelines.tracking.store import store_of
from pipelines.training.data import build_model
from tests.pipelines.planted import save_untrained

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def model(config: Config) -> SavedModel:
    with open_run(config, "untrained", "untrained") as run:
        return load_model(save_untrained(config, run_id=run.run_id))


@pytest.fixture(scope="module")
def report(config: Config, model: SavedModel) -> Report:
    return pipelines.evaluation.evaluate.evaluate(config, model=str(model.path))


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


def test_popularity_beside_the_model_equals_a_brute_force_by_counting(config: Config, report: Report) -> None:
    dataset = Dataset.open(config.dataset_path)
    counts = dataset.items()["train_count"].to_numpy()
    targets = dataset.table("test")["targets"].to_pylist()
    # ties count against the model: a target ranks behind every item of its count
    ranks = [[int((counts >= counts[item - 2]).sum()) for item in items] for items in targets]
    popularity = report.models[-1]
    assert popularity.name == "popularity"
    for n in (10, 20):
        assert popularity.metrics[f"hit_rate@{n}"] == pytest.approx(np.mean([min(each) <= n for each in ranks]))
        shares = [np.mean([rank <= n for rank in each]) for each in ranks]
        assert popularity.metrics[f"recall@{n}"] == pytest.approx(np.mean(shares))
    assert popularity.metrics["coverage@10"] == 10 / report.catalogue, "everybody is shown the same items"


def test_a_report_depends_neither_on_the_run_nor_on_the_number_of_workers(
    config: Config, model: SavedModel, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = config.model_copy(update={"train": config.train.model_copy(update={"workers": 1})})
    monkeypatch.setattr("pipelines.models.over_users.SLICE_USERS", 37)  # and cut elsewhere
    assert pipelines.evaluation.evaluate.evaluate(again, model=str(model.path)) == report


def test_the_interest_that_found_an_item_is_the_one_that_recommend_names(config: Config, model: SavedModel) -> None:
    table = Dataset.open(config.dataset_path).table("test")
    sequences = to_sequences(table, feature_specs(model.card.profile_features))
    users = torch.arange(len(sequences))
    items, _, interest = mind_core.inference.recommend(model.retriever, sequences, users, 20, exclude_seen=False)
    found, own = found_by(model.retriever, sequences, users, items)
    assert torch.equal(found, interest)
    assert own.sum(1).max() == 3


def rows(table: pa.Table, items: list[list[int]], targets: list[list[int]]) -> pa.Table:
    """The first rows of a split with other histories and targets."""
    table = table.slice(0, len(items))
    for name, values in (("items", items), ("targets", targets)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.list_(pa.int32())))
    return table


def test_users_with_nothing_but_seen_targets_are_left_out_and_counted(config: Config, model: SavedModel) -> None:
    # given one user whose target is new, one whose only target was seen, one with one of each
    table = rows(Dataset.open(config.dataset_path).table("test"), [[2, 3], [4, 5], [6, 7, 8]], [[9], [4], [7, 10]])
    # when seen items are filtered
    ranking = rank_slice([model], table, [10], True)
    # then the second user does not count, nor does the seen target of the third
    assert ranking.users.tolist() == [table["user"][0].as_py(), table["user"][2].as_py()]
    assert ranking.lengths.tolist() == [2, 3]
    assert ranking.targets.tolist() == [9, 10]
    assert (ranking.seen_targets, ranking.left_out) == (2, 1)
    # and when they are kept, all do
    kept = rank_slice([model], table, [10], False)
    assert (kept.seen_targets, kept.left_out, kept.targets.tolist()) == (0, 0, [9, 4, 7, 10])
    # and nobody left joins with somebody
    nobody = rank_slice([model], table.slice(1, 1), [10], True)
    assert join_rankings([nobody, ranking]).users.tolist() == ranking.users.tolist()


def test_a_difference_of_nothing_is_nothing() -> None:
    same = np.array([0.0, 1.0, 0.5])
    assert difference(same, same, "itself") == Difference("itself", 0.0, 0.0, 0.0)


def test_the_report_and_each_users_outcome_are_stored_and_tracked(config: Config, report: Report) -> None:
    folder = config.home_path / "evaluations" / "planted-default-0123456789-test"
    assert json.loads((folder / "report.json").read_text())["users"] == report.users
    users = pq.read_table(folder / "users.parquet")
    assert np.mean(users["ndcg@20"]) == pytest.approx(report.models[0].metrics["ndcg@20"])
    assert {path.name for path in folder.glob("*.png")} == {"bands.png", "coupling.png", "retrieved.png"}
    client = mlflow.MlflowClient(store_of(config))
    experiment = client.get_experiment_by_name("planted")
    run, *_ = client.search_runs([experiment.experiment_id], "tags.`mind.stage` = 'evaluate'")
    training = client.get_run(report.models[0].run_id)
    assert run.data.tags["mlflow.parentRunId"] == run.data.tags["mind.train_run"] == training.info.run_id
    assert training.info.status == "FINISHED"
    for each in (run, training):  # on the training's too: its table compares models
        assert each.data.metrics["test/ndcg_at_20"] == pytest.approx(report.models[0].metrics["ndcg@20"])


def test_a_run_describes_the_model_it_evaluated_not_the_settings_of_the_command(
    config: Config, model: SavedModel, report: Report
) -> None:
    # given a command whose preset and settings are others than the model's
    settings = {"preset": "paper", "model": replace(config.model, interests=2)}
    assert pipelines.evaluation.evaluate.evaluate(config.model_copy(update=settings), model=str(model.path)) == report
    client = mlflow.MlflowClient(store_of(config))
    experiment = client.get_experiment_by_name("planted")
    run, *_ = client.search_runs([experiment.experiment_id], "tags.`mind.stage` = 'evaluate'")
    # then its run has those of the model, and no settings of a training, which may not have been the model's
    assert (run.data.params["preset"], run.data.tags["mind.preset"]) == ("default", "default")
    assert run.data.params["model.interests"] == "3"
    assert run.data.params["evaluate.seen"] == "keep"
    assert not [name for name in run.data.params if name.startswith(("loss.", "optim.", "train."))]


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
    assert [int((bands == band).sum()) for band in range(4)] == [1, 19, 80, 1]
    assert bands[1] == 0
    assert bands[0] == 3


def test_popularity_bands_are_shares_of_the_items_seen_in_training() -> None:
    counts = np.concatenate([np.arange(100, 0, -1), np.zeros(900, np.int64)])
    assert [int((popularity_bands(counts) == band).sum()) for band in range(4)] == [1, 19, 80, 900]

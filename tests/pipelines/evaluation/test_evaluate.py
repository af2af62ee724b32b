"""Evaluation: one ranking for all, beside the baselines, whoever computes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

import mind_core.inference
import pipelines.evaluation.evaluate
from mind_core.evaluation import evaluate
from mind_core.inference import MINDRetriever
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import feature_specs, to_sequences, to_targets
from pipelines.evaluation.baselines import LABELS, FittedBaselines, fit_baselines
from pipelines.evaluation.ranking import join_rankings, rank_slice
from pipelines.evaluation.report import Difference, Report, difference, interval, metrics_of, popularity_bands
from pipelines.evaluation.show_report import show_report
from pipelines.models.artifact import SavedModel, load_model
from pipelines.tracking.run import open_run
from pipelines.tracking.store import store_of
from tests.pipelines.planted import save_untrained, untrained

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def model(config: Config) -> SavedModel:
    with open_run(config, "untrained", "untrained") as run:
        return load_model(save_untrained(config, run_id=run.run_id))


@pytest.fixture(scope="module")
def fitted(config: Config) -> FittedBaselines:
    return fit_baselines(Dataset.open(config.dataset_path), config)


@pytest.fixture(scope="module")
def report(config: Config, model: SavedModel) -> Report:
    return pipelines.evaluation.evaluate.evaluate(config, model=str(model.path))


def test_saving_and_loading_changes_nothing(config: Config, model: SavedModel) -> None:
    assert isinstance(model.retriever, MINDRetriever)
    fresh = untrained(config)
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, model.retriever.model.state_dict()[name]), name


def test_the_report_is_what_ranking_in_one_process_gives(config: Config, model: SavedModel, report: Report) -> None:
    table = Dataset.open(config.dataset_path).table("test")
    sequences = to_sequences(table, feature_specs(model.card.profile_features))
    everyone = torch.arange(len(sequences))
    found = evaluate(
        model.retriever, sequences, to_targets(table), everyone, report.cutoffs, exclude_seen=False, shelves=True
    )
    for name, values in found.metrics.items():
        assert report.models[0].metrics[name] == pytest.approx(float(values.nanmean()), abs=1e-12), name
    assert len(found.metrics) == 5 * 4 * len(report.cutoffs)
    assert report.users == len(found.users)
    assert report.models[0].metrics["coverage@10"] == len(found.top_items[:, :10].unique()) / report.catalogue


def test_bands_add_up_to_the_whole(report: Report) -> None:
    for one in report.models:
        assert sum(band.size for band in one.by_history) == report.users
        whole = sum(band.size * band.metrics["ndcg@20"] for band in one.by_history) / report.users
        assert whole == pytest.approx(one.metrics["ndcg@20"])
        assert sum(band.size for band in one.by_popularity) == report.targets


def test_bands_of_users_by_interests_add_up_to_the_whole(report: Report) -> None:
    for one in report.models:
        assert [band.size for band in one.by_interests] == [size for size in one.users_by_interests if size]
        whole = sum(band.size * band.metrics["ndcg@20"] for band in one.by_interests) / report.users
        assert whole == pytest.approx(one.metrics["ndcg@20"])


def test_popularity_beside_the_model_equals_a_brute_force_by_counting(config: Config, report: Report) -> None:
    dataset = Dataset.open(config.dataset_path)
    counts = dataset.items()["train_count"].to_numpy()
    targets = dataset.table("test")["targets"].to_pylist()
    # ties count against the model: a target ranks behind every item of its count
    ranks = [[int((counts >= counts[item - 2]).sum()) for item in items] for items in targets]
    popularity = report.models[1]
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


@pytest.mark.parametrize("workers", [1, 2])
def test_a_report_made_in_this_process_is_that_of_rays_actors_to_the_bit(
    config: Config, model: SavedModel, report: Report, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    again = config.model_copy(update={"train": config.train.model_copy(update={"workers": workers})})
    monkeypatch.setattr("pipelines.models.over_users.HERE_PAIRS", 10**9)
    monkeypatch.setattr("pipelines.models.users.on_ray.ray_session", None)
    assert pipelines.evaluation.evaluate.evaluate(again, model=str(model.path)) == report


def test_places_are_counted_by_the_interest_that_recommend_names(
    config: Config, model: SavedModel, fitted: FittedBaselines
) -> None:
    table = Dataset.open(config.dataset_path).table("test")
    sequences = to_sequences(table, feature_specs(model.card.profile_features))
    users = torch.arange(len(sequences))
    _, _, interest = mind_core.inference.recommend(model.retriever, sequences, users, 20, exclude_seen=False)
    ranking = rank_slice([model], fitted, table, [20], False)
    assert ranking.models[0].found_by.tolist() == torch.bincount(interest.flatten(), minlength=3).tolist()
    assert len(ranking.models[0].own) == len(users)
    assert 3 in ranking.models[0].own
    assert [set(each.own.tolist()) for each in ranking.models[1:]] == [{1}] * 4, "rules have no interests"


def rows(table: pa.Table, items: list[list[int]], targets: list[list[int]]) -> pa.Table:
    """The first rows of a split with other histories and targets."""
    table = table.slice(0, len(items))
    for name, values in (("items", items), ("targets", targets)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.list_(pa.int32())))
    return table


def test_users_with_nothing_but_seen_targets_are_left_out_and_counted(
    config: Config, model: SavedModel, fitted: FittedBaselines
) -> None:
    # given one user whose target is new, one whose only target was seen, one with one of each
    table = rows(Dataset.open(config.dataset_path).table("test"), [[2, 3], [4, 5], [6, 7, 8]], [[9], [4], [7, 10]])
    # when seen items are filtered
    ranking = rank_slice([model], fitted, table, [10], True)
    # then the second user does not count, nor does the seen target of the third
    assert ranking.users.tolist() == [table["user"][0].as_py(), table["user"][2].as_py()]
    assert ranking.lengths.tolist() == [2, 3]
    assert ranking.targets.tolist() == [9, 10]
    assert (ranking.seen_targets, ranking.left_out) == (2, 1)
    # and when they are kept, all do
    kept = rank_slice([model], fitted, table, [10], False)
    assert (kept.seen_targets, kept.left_out, kept.targets.tolist()) == (0, 0, [9, 4, 7, 10])
    assert kept.again.tolist() == [False, True, True, False]
    # and nobody left joins with somebody
    nobody = rank_slice([model], fitted, table.slice(1, 1), [10], True)
    assert join_rankings([nobody, ranking]).users.tolist() == ranking.users.tolist()
    # and joined slices have the metrics of one slice
    apart = join_rankings([rank_slice([model], fitted, table.slice(row, 1), [10], False) for row in range(3)])
    assert apart.row.tolist() == kept.row.tolist() == [0, 1, 2, 2]
    for one, other in zip(apart.models, kept.models, strict=True):
        expected = metrics_of(kept, other, [10])
        for name, values in metrics_of(apart, one, [10]).items():
            np.testing.assert_array_equal(values, expected[name])


def test_baselines_stand_below_the_models_in_the_report_and_in_mlflow(config: Config, report: Report) -> None:
    assert [each.name for each in report.models[1:]] == list(LABELS)
    assert [each.label for each in report.models[1:]] == list(LABELS.values())
    assert all(each.path is None for each in report.models[1:])
    client = mlflow.MlflowClient(store_of(config))
    experiment = client.get_experiment_by_name("planted")
    run, *_ = client.search_runs([experiment.experiment_id], "tags.`mind.stage` = 'evaluate'")
    for each in report.models[1:]:
        for name in ("recall@20", "again/recall@20", "shelf_new/ndcg@20"):
            logged = run.data.metrics[f"test/{each.name}/{name.replace('@', '_at_')}"]
            assert logged == pytest.approx(each.metrics[name]), name
    assert run.data.metrics["test/new/recall_at_20"] == pytest.approx(report.models[0].metrics["new/recall@20"])


def test_groups_hold_every_target_once(report: Report) -> None:
    assert sum(group.targets for group in report.groups.values()) == report.targets
    assert max(group.users for group in report.groups.values()) <= report.users


def test_every_metric_has_an_interval_around_it(report: Report) -> None:
    for model in report.models:
        assert set(model.intervals) == {name for name in model.metrics if not name.startswith(("coverage", "gini"))}
        for name, (low, high) in model.intervals.items():
            assert low <= model.metrics[name] <= high, (model.name, name)


def test_the_model_is_compared_with_each_baseline_headline_first(report: Report) -> None:
    others = [each.label for each in report.models[1:]]
    assert [found.against for found in report.headlines] == others
    assert report.differences[: len(others)] == report.headlines
    grouped = [f"{group}/{kind}@20" for kind in ("recall", "ndcg") for group in ("again", "new")]
    assert [found.metric for found in report.differences[len(others) :]] == grouped * len(others)
    for found in report.differences:
        first, second = (
            next(m for m in report.models if m.label == label).metrics[found.metric]
            for label in (report.models[0].label, found.against)
        )
        assert found.mean == pytest.approx(first - second, abs=1e-12)
        assert found.low <= found.mean <= found.high


@pytest.mark.parametrize("width", [80, 100])
def test_the_report_on_the_terminal_fits(
    config: Config, report: Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("pipelines.evaluation.show_report.output", Console(width=width))
    show_report(report, config.home_path)
    printed = capsys.readouterr().out
    assert "…" not in printed, "nothing is cut off"
    assert max(map(len, printed.splitlines()[:-1])) <= width
    for label in LABELS.values():
        assert printed.count(label) >= 6, "in every table, on a line of its own"


def test_a_difference_of_nothing_is_nothing() -> None:
    same = np.array([0.0, 1.0, 0.5])
    assert difference(same, same, "itself", "ndcg@9") == Difference("itself", "ndcg@9", 0.0, 0.0, 0.0)
    assert not difference(same, same, "itself", "ndcg@9").told


def test_users_who_do_not_count_are_left_out_of_a_difference() -> None:
    nan = float("nan")
    found = difference(np.array([1.0, nan, 0.5]), np.array([0.0, nan, 0.5]), "other", "again/ndcg@9")
    assert found.mean == 0.5


def test_values_put_into_bins_have_the_interval_that_all_of_them_have(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).beta(0.5, 2.0, 5000)
    binned = interval(values)
    monkeypatch.setattr("pipelines.evaluation.report.LEVELS", 10**6)
    exact = interval(values)
    assert len(np.unique(values)) > 512
    half = (exact[1] - exact[0]) / 2
    # two draws of 1,000 resamples differ by some hundredths of the interval: the bins must not show beside that
    assert binned == pytest.approx(exact, abs=0.15 * half)
    assert (binned[0] + binned[1]) / 2 == pytest.approx(values.mean(), abs=0.1 * half)


def test_the_report_and_each_users_outcome_are_stored_and_tracked(config: Config, report: Report) -> None:
    folder = config.home_path / "evaluations" / "planted-default-0123456789-test"
    assert json.loads((folder / "report.json").read_text())["users"] == report.users
    users = pq.read_table(folder / "users.parquet")
    assert np.mean(users["ndcg@20"]) == pytest.approx(report.models[0].metrics["ndcg@20"])
    assert {path.name for path in folder.glob("*.png")} == {"bands.png", "coupling.png", "retrieved.png", "variety.png"}
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
    found = difference(first, second, "other", "recall@9")
    assert found == difference(first, second, "other", "recall@9")
    assert found.told
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(0.1, abs=0.01)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.05 / 20, rel=0.15)


def test_popularity_bands_are_head_mid_tail_and_two_of_cold_items() -> None:
    counts = np.array([0, *range(100, 0, -1)])
    bands = popularity_bands(counts)
    assert [int((bands == band).sum()) for band in range(5)] == [1, 19, 76, 4, 1]
    assert bands[1] == 0
    assert bands[0] == 4


def test_an_item_of_fewer_than_five_events_is_cold_even_if_no_other_has_more() -> None:
    assert popularity_bands(np.array([4, 3, 0, 5])).tolist() == [3, 3, 4, 0]


def test_popularity_bands_are_shares_of_the_items_seen_in_training() -> None:
    counts = np.concatenate([np.arange(100, 0, -1), np.zeros(900, np.int64)])
    assert [int((popularity_bands(counts) == band).sum()) for band in range(5)] == [1, 19, 76, 4, 900]


def test_with_seen_items_filtered_there_is_one_group_and_nothing_of_personal_frequency(
    config: Config, model: SavedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    filtered = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"seen": "filter"})})
    report = pipelines.evaluation.evaluate.evaluate(filtered, model=str(model.path))
    assert [each.name for each in report.models[1:]] == ["popularity", "recent_popularity", "item_knn"]
    assert report.groups == {}
    groups = {name.split("/")[0] for each in report.models for name in each.metrics if "/" in name}
    assert groups <= {"list", "cold"}, "again, new and the shelves are one and the same"
    assert {found.metric for found in report.differences} == {"recall@20"}
    printed = capsys.readouterr().out
    assert "shelf" not in printed
    assert not re.search(r"\bagain\b", printed.replace("Look again:", ""))

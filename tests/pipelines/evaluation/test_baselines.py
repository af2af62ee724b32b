"""The baselines as a dataset fits them: by brute force over the planted log, and what bounds them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

import pipelines.evaluation.baselines as baselines
from mind_core.baselines import ItemKNN, PersonalFrequency
from mind_core.evaluation import evaluate
from mind_core.inference import recommend
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import to_sequences, to_targets
from pipelines.evaluation.baselines import LABELS, fit_baselines

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def dataset(config: Config) -> Dataset:
    return Dataset.open(config.dataset_path)


def rows_of(dataset: Dataset) -> list[dict[str, list[int]]]:
    rows: list[dict[str, list[int]]] = dataset.table("train", ["items", "times"]).to_pylist()
    return rows


def test_counts_and_co_occurrence_are_those_of_the_train_split(config: Config, dataset: Dataset) -> None:
    fitted = fit_baselines(dataset, config)
    rows = rows_of(dataset)
    events = [item for row in rows for item in row["items"]]
    assert fitted.counts.tolist() == np.bincount(events, minlength=dataset.manifest.item_rows).tolist()
    assert fitted.neighbours is not None
    near, similarity = fitted.neighbours.items, fitted.neighbours.similarity
    had_by = {item: {user for user, row in enumerate(rows) if item in row["items"]} for item in set(events)}
    for item in (2, 7, 40):
        both = {
            i: len(had_by[item] & had_by[i]) / (len(had_by[item]) * len(had_by[i])) ** 0.5 for i in had_by if i != item
        }
        expected = sorted((-value, i) for i, value in both.items() if value > 0)
        found = [i for i in near[item].tolist() if i > 0]
        assert len(found) == len(expected), "all neighbours of a small catalogue"
        assert similarity[item, : len(found)].tolist() == pytest.approx([-value for value, _ in expected], rel=1e-6)


def test_recent_is_the_newest_tenth_by_time_if_times_compare_and_else_of_each_user(
    config: Config, dataset: Dataset
) -> None:
    rows, catalogue = rows_of(dataset), dataset.manifest.item_rows
    number = Dataset(dataset.path, replace(dataset.manifest, time_unit="number"))
    clock = Dataset(dataset.path, replace(dataset.manifest, time_unit="us"))
    by_time = sorted((time for row in rows for time in row["times"]), reverse=True)
    since = by_time[int(np.ceil(0.1 * len(by_time))) - 1]
    late = [i for row in rows for i, time in zip(row["items"], row["times"], strict=True) if time >= since]
    assert fit_baselines(clock, config).recent.tolist() == np.bincount(late, minlength=catalogue).tolist()
    own = [i for row in rows for i in row["items"][len(row["items"]) - int(np.ceil(0.1 * len(row["items"]))) :]]
    found = fit_baselines(number, config)
    assert found.recent.tolist() == np.bincount(own, minlength=catalogue).tolist()
    assert "each user" in found.notes["recent_popularity"]


def test_above_a_number_of_events_item_knn_is_left_out_with_a_line_and_the_rest_is_fitted_to_some(
    config: Config, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "EVENTS", 10)
    fitted = fit_baselines(dataset, config)
    events = dataset.manifest.splits["train"].events
    assert fitted.left_out == [f"item-kNN is left out: {events:,} train events, more than 10"]
    assert fitted.neighbours is None
    assert fitted.recent.sum() > 0
    assert list(fitted.scorers(False)) == ["popularity", "recent_popularity", "personal_frequency"]


def test_what_is_ranked_depends_on_whether_seen_items_are_kept(config: Config, dataset: Dataset) -> None:
    fitted = fit_baselines(dataset, config)
    assert list(fitted.scorers(exclude_seen=False)) == list(LABELS)
    assert list(fitted.scorers(exclude_seen=True)) == [name for name in LABELS if name != "personal_frequency"]
    assert isinstance(fitted.scorers(False)["personal_frequency"], PersonalFrequency)


def test_arrays_that_nobody_may_write_to_rank_as_others_do(config: Config, dataset: Dataset) -> None:
    # given what Ray's object store hands out
    fitted = fit_baselines(dataset, config)
    assert fitted.neighbours is not None
    near = fitted.neighbours
    for array in (near.items, near.similarity):
        array.flags.writeable = False
    rule = fitted.scorers(False)["item_knn"]
    copies = torch.tensor(near.items), torch.tensor(near.similarity)
    plain = ItemKNN(*copies, torch.tensor(fitted.counts), near.decay)
    sequences = to_sequences(pa.table({"items": dataset.table("test")["items"]}), [])
    users = torch.arange(len(sequences))
    found, expected = (recommend(each, sequences, users, 9, exclude_seen=False) for each in (rule, plain))
    assert torch.equal(found.items, expected.items)


def test_the_decay_is_the_one_that_the_validation_users_like_better(
    config: Config, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dataset.table("validation", ["items", "targets"])
    sequences, targets = to_sequences(table, []), to_targets(table)
    for pair in ((0.95, 0.1), (0.1, 0.95), (0.5, 0.8)):
        monkeypatch.setattr(baselines, "DECAYS", pair)
        fitted = fit_baselines(dataset, config)
        near = fitted.neighbours
        assert near is not None
        arrays = torch.tensor(near.items), torch.tensor(near.similarity), torch.tensor(fitted.counts)
        value = {}
        for decay in pair:
            users = torch.arange(len(sequences))
            found = evaluate(ItemKNN(*arrays, decay), sequences, targets, users, [20], exclude_seen=False)
            value[decay] = float(found.metrics["recall@20"].mean())
        assert value[near.decay] == max(value.values())
        assert str(near.decay) in fitted.notes["item_knn"]

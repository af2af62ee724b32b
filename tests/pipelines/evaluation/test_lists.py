"""What lists are made of, summed by workers and averaged by the driver."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mind_core.evaluation import evaluate
from mind_core.special_rows import FIRST_VALUE
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset, FeatureInfo
from pipelines.dataset.telling_feature import telling_feature
from pipelines.dataset.tensors import to_targets, train_counts
from pipelines.evaluation.lists import (
    Categories,
    ListSample,
    item_categories,
    join_samples,
    list_report,
    list_samples,
)
from pipelines.evaluation.report import POPULARITY_BANDS, popularity_bands
from pipelines.models.artifact import load_model
from tests.pipelines.planted import save_untrained

pytestmark = pytest.mark.ray
DEPTH = 10


@pytest.fixture(scope="module")
def dataset(config: Config) -> Dataset:
    return Dataset.open(config.dataset_path)


@pytest.fixture(scope="module")
def categories(dataset: Dataset) -> Categories:
    found = item_categories(dataset)
    assert found is not None
    return found


def sample(config: Config, dataset: Dataset, categories: Categories | None, rows: slice = slice(None)) -> ListSample:
    model = load_model(save_untrained(config))
    table = dataset.table("test")
    table = table.slice(rows.start or 0, (rows.stop or len(table)) - (rows.start or 0))
    sequences = model.sequences(table)
    everyone = torch.arange(len(sequences))
    outcome = evaluate(model.retriever, sequences, to_targets(table), everyone, [DEPTH], exclude_seen=False)
    (found,) = list_samples([outcome], sequences, train_counts(dataset.items()), categories, DEPTH)
    return found


def test_the_feature_of_about_a_hundred_values_is_the_one_that_tells() -> None:
    infos = [FeatureInfo(name, "categorical", size) for name, size in (("brand", 5000), ("aisle", 120), ("own", 5))]
    assert telling_feature(infos) == "aisle"
    assert telling_feature([FeatureInfo("price", "numeric", 0)]) is None


def test_categories_are_the_values_that_the_dataset_names(dataset: Dataset, categories: Categories) -> None:
    assert categories.feature == "category"
    column = dataset.items()["feature_category"].to_pylist()
    bags = categories.bags()
    for place in (0, len(column) - 1):
        rows = bags.select(torch.tensor([place + 2])).rows.tolist()
        assert rows == ([column[place] - FIRST_VALUE] if column[place] >= FIRST_VALUE else [])
    assert len(bags) == len(column) + 2
    assert max(categories.rows) < len(categories.names)


def test_slices_join_to_what_all_users_together_give(config: Config, dataset: Dataset, categories: Categories) -> None:
    whole = sample(config, dataset, categories)
    joined = join_samples([sample(config, dataset, categories, slice(0, 37)),
                           sample(config, dataset, categories, slice(37, None))])  # fmt: skip
    for name in ("novelty", "diversity", "within", "across", "calibration", "used", "items", "times", "filled"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name), err_msg=name)
    for name in ("popularity", "history", "shown"):
        np.testing.assert_allclose(getattr(joined, name), getattr(whole, name), err_msg=name)
    assert (joined.depth, joined.counted) == (whole.depth, whole.counted)


def test_the_report_adds_up(config: Config, dataset: Dataset, categories: Categories) -> None:
    found, counts = sample(config, dataset, categories), dataset.items()["train_count"].to_numpy()
    users = len(found.novelty)
    own = np.full(users, 3, np.int8)
    report = list_report(found, own, popularity_bands(counts), len(POPULARITY_BANDS), categories)
    assert sum(found.times) == users * DEPTH
    assert sum(report.band_share) == pytest.approx(1)
    assert sum(map(sum, report.used_by_interests)) == users
    assert sum(report.used_by_interests[2]) == users
    assert len(report.popularity_by_rank) == DEPTH
    popularity = (counts[found.items - 2] * found.times).sum() / (users * DEPTH)
    assert np.mean(report.popularity_by_rank) == pytest.approx(popularity)
    assert sum(each.history for each in report.categories) == pytest.approx(1, abs=1e-5), "8 clusters: all are shown"


def test_without_categories_only_novelty_is_known(config: Config, dataset: Dataset) -> None:
    found = sample(config, dataset, None)
    assert list(found.by_user()) == [f"list/novelty@{DEPTH}"]
    bands = popularity_bands(dataset.items()["train_count"].to_numpy())
    report = list_report(found, np.full(len(found.novelty), 3, np.int8), bands, len(POPULARITY_BANDS), None)
    assert (report.feature, report.categories) == (None, [])

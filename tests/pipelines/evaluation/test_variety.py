"""What varied lists cost: the best match is the evaluated list, variety is paid for, the cut of the users is unseen."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from mind_core.diversity import NO_CATEGORY
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.evaluation.baselines import FittedBaselines
from pipelines.evaluation.ranking import Ranking, join_rankings, rank_slice
from pipelines.evaluation.report import mean, metrics_of
from pipelines.evaluation.variety import PriceReport, price_report, price_settings
from pipelines.evaluation.variety_figure import variety_figure
from pipelines.models.artifact import SavedModel, load_model
from tests.pipelines.planted import save_untrained

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def model(config: Config) -> SavedModel:
    return load_model(save_untrained(config, "planted-default-7a21e7"))


def with_evaluate(config: Config, **changes: object) -> Config:
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=changes)})


def ranked(config: Config, model: SavedModel, slices: int, seen: str = "keep") -> tuple[Ranking, PriceReport]:
    dataset = Dataset.open(config.dataset_path)
    table = dataset.table("test")
    settings = price_settings(config, dataset, 20, 3, len(table))
    counts = dataset.items()["train_count"].to_numpy()
    padded = np.concatenate([[0, 0], counts])
    size = -(-len(table) // slices)
    parts = [
        rank_slice(
            [model],
            FittedBaselines(padded, padded),
            table.slice(start, size),
            [10, 20],
            seen == "filter",
            1,
            price=settings,
        )
        for start in range(0, len(table), size)
    ]
    ranking = join_rankings(parts)
    found = price_report(settings, ranking.prices, len(counts))
    assert found is not None
    return ranking, found


@pytest.mark.parametrize("seen", ["keep", "filter"])
def test_the_best_match_costs_nothing_and_variety_is_paid_for(config: Config, model: SavedModel, seen: str) -> None:
    ranking, found = ranked(config, model, 1, seen)
    best, *_ = found.rows
    metrics = metrics_of(ranking, ranking.models[0], [10, 20])
    assert best.recall == pytest.approx(mean(metrics["recall@20"]))
    assert best.ndcg == pytest.approx(mean(metrics["ndcg@20"]))
    assert best.coverage == len(ranking.models[0].recommended[20]) / 150
    assert (found.category, found.n, found.users) == ("category", 20, len(ranking.users))
    by_label = {row.label: row for row in found.rows}
    assert list(by_label) == [
        "best match",
        "quota of 2",
        "round robin",
        *(f"λ = {each:g}" for each in config.evaluate.diversity),
    ]
    greedy = [best, *(row for row in found.rows if row.policy == "greedy")]
    pairs = [row.category_diversity for row in greedy]
    assert all(one is not None and other is not None and one <= other + 1e-9 for one, other in pairwise(pairs))
    assert greedy[-1].categories > best.categories
    assert by_label["quota of 2"].interests >= best.interests
    assert by_label["round robin"].interests >= best.interests


def test_the_cut_of_the_users_does_not_show(config: Config, model: SavedModel) -> None:
    (_, whole), (_, cut) = ranked(config, model, 1), ranked(config, model, 3)
    for one, other in zip(whole.rows, cut.rows, strict=True):
        assert one.label == other.label
        for name, value in vars(one).items():
            assert getattr(other, name) == (pytest.approx(value) if isinstance(value, float) else value)


def test_categories_are_the_features_values(config: Config) -> None:
    dataset = Dataset.open(config.dataset_path)
    settings = price_settings(config, dataset, 20, 3, 100)
    assert settings is not None
    assert settings.codes[:2].tolist() == [NO_CATEGORY, NO_CATEGORY]
    assert torch.equal(settings.codes[2:], torch.tensor(dataset.items()["feature_category"].to_numpy()).long())


def test_it_is_off_where_nothing_tells_categories_or_when_it_is_switched_off(config: Config) -> None:
    dataset = Dataset.open(config.dataset_path)
    assert price_settings(with_evaluate(config, diversity=[]), dataset, 20, 3, 100) is None
    bare = replace(dataset, manifest=replace(dataset.manifest, item_features=()))
    assert price_settings(config, bare, 20, 3, 100) is None
    alone = price_settings(config, dataset, 20, 1, 100)
    assert alone is not None
    assert {rules.policy for rules in alone.rules.values()} == {"best", "greedy"}
    with pytest.raises(UserError, match=r"evaluate.category='colour': must be a categorical item feature .*: category"):
        price_settings(with_evaluate(config, category="colour"), dataset, 20, 3, 100)


def test_the_picture_has_a_point_for_each_policy(config: Config, model: SavedModel) -> None:
    _, found = ranked(config, model, 1)
    figure = variety_figure(found, "planted")
    left, right = figure.axes
    for axes in (left, right):
        assert {text.get_text() for text in axes.texts} == {row.label for row in found.rows if row.policy == "greedy"}
    legend = left.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == {
        "greedy by λ",
        "best match",
        "quota of 2",
        "round robin",
    }

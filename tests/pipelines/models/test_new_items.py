"""Items that came after the training: their vectors are those of cold items, and the catalogue grows by them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch

from mind_core.features import FeatureColumn, FeatureSpec, item_bags, new_item_bags
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.new_items import read_new_items, with_new_items
from tests.pipelines.planted import save_untrained

NAME = "planted-default-0e0e0e0e0e"


@pytest.fixture(scope="module")
def model(config: Config) -> SavedModel:
    return load_model(save_untrained(config, NAME))


@pytest.fixture(scope="module")
def dataset(config: Config) -> Dataset:
    return Dataset.open(config.dataset_path)


def raw_items(config: Config) -> pd.DataFrame:
    assert config.data.items is not None
    return pd.read_parquet(config.data.items.path)


def written(table: pd.DataFrame, folder: Path) -> str:
    table.to_parquet(folder / "new.parquet")
    return str(folder / "new.parquet")


def test_a_new_items_bag_is_a_cold_items() -> None:
    # given items 2 to 5, of which 4 and 5 are cold, and 5 alone has the category 5
    specs = [FeatureSpec("category", "categorical", 6), FeatureSpec("price", "numeric", 0)]
    values = [torch.tensor([3, 4, 3, 5]), torch.tensor([1.0, float("nan"), 2.0, 3.0])]
    columns = [FeatureColumn(spec, value) for spec, value in zip(specs, values, strict=True)]
    cold = torch.tensor([False, False, False, False, True, True])
    whole = item_bags(columns, 6, cold)
    # when both are made as items that came later
    warm = [FeatureColumn(each.spec, each.values[:2]) for each in columns]
    bags, told = new_item_bags([FeatureColumn(each.spec, each.values[2:]) for each in columns], warm, cold[:4])
    later = bags.select(torch.arange(2))
    expected = whole.select(torch.tensor([4, 5]))
    assert torch.equal(later.offsets, expected.offsets)
    assert torch.equal(later.rows, expected.rows - 2), "feature rows begin after fewer items"
    assert torch.equal(later.weights, expected.weights)
    assert told.tolist() == [True, True]


def test_nothing_is_told_by_a_rare_or_missing_value() -> None:
    spec = FeatureSpec("category", "categorical", 5)
    known = FeatureColumn(spec, torch.tensor([1, 2, 3]))  # rare, missing, a value; 4 is nobody's
    _, told = new_item_bags([FeatureColumn(spec, torch.tensor([1, 2, 3, 4]))], [known], torch.zeros(5).bool())
    assert told.tolist() == [False, False, True, False]


def test_a_row_of_known_features_becomes_the_mean_of_their_embeddings(
    config: Config, dataset: Dataset, model: SavedModel, tmp_path: Path
) -> None:
    rows = raw_items(config).head(4).assign(item_id=lambda t: t["item_id"] + 10_000_000)
    new = read_new_items(config, dataset, model, written(rows, tmp_path))
    assert new.ids.to_pylist() == rows["item_id"].tolist()
    assert (new.there, len(new.unknown)) == (0, 0)
    grown = with_new_items(model, new)
    assert len(grown.retriever.item_vectors) == len(model.retriever.item_vectors) + 4
    assert torch.equal(grown.retriever.item_vectors[:-4], model.retriever.item_vectors)
    torch.testing.assert_close(grown.retriever.item_vectors[-4:].norm(dim=1), torch.ones(4))
    assert grown.encode_items(new.ids).to_pylist() == list(range(len(model.items) + 2, len(model.items) + 6))
    assert len(model.items) == dataset.manifest.items, "the model itself is as it was"


def test_new_items_are_recommended(config: Config, dataset: Dataset, model: SavedModel, tmp_path: Path) -> None:
    rows = raw_items(config).assign(item_id=lambda t: t["item_id"] + 10_000_000)
    new = read_new_items(config, dataset, model, written(rows, tmp_path))
    grown = with_new_items(model, new)
    histories = grown.encode(pa.array([model.item_ids[:5].to_pylist()]))
    lists = grown.recommend(histories, len(grown.items), exclude_seen=False)
    assert set(new.ids.to_pylist()) < set(lists["id"].to_pylist())


def test_rows_without_a_known_value_and_rows_of_known_items_are_counted(
    config: Config, dataset: Dataset, model: SavedModel, tmp_path: Path
) -> None:
    known = raw_items(config).head(3)
    rows = known.assign(item_id=lambda t: t["item_id"] + 10_000_000)
    nothing = rows.head(2).assign(item_id=[-1, -2], category="no such", price=float("nan"))
    table = pd.concat([known, rows, nothing])
    new = read_new_items(config, dataset, model, written(table, tmp_path))
    assert (len(new), new.there, new.unknown.to_pylist()) == (3, 3, [-1, -2])
    assert new.summary()[2].startswith("2 rows left out, the model knows no value of any of their features")
    with pytest.raises(
        UserError, match=r"--items .*: no new item to add: 2 rows left out.*would be 0 or all alike \(e.g. -1, -2\)"
    ):
        read_new_items(config, dataset, model, written(nothing, tmp_path))
    with pytest.raises(UserError, match="no new item to add: every row is an item that the model has"):
        read_new_items(config, dataset, model, written(known, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="price"), "price"),
        (lambda t: t.assign(item_id=t["item_id"].astype(str)), "item_id"),
        (lambda t: pd.concat([t, t]), "stand on several rows"),
    ],
)
def test_a_table_that_is_not_the_item_table_is_refused_in_one_line(
    config: Config, dataset: Dataset, model: SavedModel, tmp_path: Path, change: object, message: str
) -> None:
    rows = raw_items(config).head(4).assign(item_id=lambda t: t["item_id"] + 10_000_000)
    with pytest.raises(UserError, match=message) as error:
        read_new_items(config, dataset, model, written(change(rows), tmp_path))  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_a_model_without_item_features_refuses_new_items(
    config: Config, dataset: Dataset, model: SavedModel, tmp_path: Path
) -> None:
    bare = config.model_copy(update={"data": config.data.model_copy(update={"items": None})})
    with pytest.raises(UserError, match=r"--items x: .* has no item features \(data.items.features\)"):
        read_new_items(bare, dataset, model, "x")


def test_the_schema_of_a_catalogue_stays(config: Config, dataset: Dataset, model: SavedModel, tmp_path: Path) -> None:
    rows = raw_items(config).head(2).assign(item_id=lambda t: t["item_id"] + 10_000_000)
    grown = with_new_items(model, read_new_items(config, dataset, model, written(rows, tmp_path)))
    assert grown.items.schema == model.items.schema

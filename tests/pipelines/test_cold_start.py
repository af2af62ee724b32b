"""Items that the log never names: in the vocabulary, with vectors from their features, ranked and recommended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

import pipelines.evaluation.evaluate
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import cold_mask, feature_specs, to_sequences
from pipelines.models.artifact import SavedModel, load_model
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.synthetic import generate
from pipelines.retrieval.recommend import recommend
from pipelines.training.data import load_items
from pipelines.training.train import train
from tests.pipelines.planted import SETTINGS

ITEMS, COLD, CLUSTERS = 150, 30, 8  # item ids ITEMS - COLD and above never appear in the log


@dataclass(frozen=True)
class Trained:
    """A model of a log that the cold items were taken out of."""

    config: Config
    dataset: Dataset
    model: SavedModel
    category: list[str]  # by raw item id
    clusters: list[list[int]]  # planted in each user, by raw user id


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Trained:
    folder = tmp_path_factory.mktemp("cold")
    log = generate(folder / "log", events=8000, users=200, items=ITEMS, clusters=CLUSTERS)
    events = pq.read_table(log.events)
    pq.write_table(events.filter(pc.less(events["item_id"], ITEMS - COLD)), folder / "events.parquet")
    config = configure(folder / "home", folder / "events.parquet", folder / "log" / "items.parquet")
    preprocess(config)
    outcome = train(config)
    return Trained(
        config,
        Dataset.open(config.dataset_path),
        load_model(outcome.model),
        pq.read_table(folder / "log" / "items.parquet")["category"].to_pylist(),
        pq.read_table(log.interests)["clusters"].to_pylist(),
    )


def configure(home: Path, events: Path, items: Path) -> Config:
    data = {
        "events": {"path": str(events), "user": "user_id", "item": "item_id", "time": "time"},
        "items": {
            "path": str(items),
            "id": "item_id",
            "features": {"category": {}},
            "show": ["category"],
            "cold_start": True,
        },
    }
    settings = {**SETTINGS["train"], "workers": 1, "epochs": 10}
    return Config.model_validate({**SETTINGS, "name": "cold", "home": str(home), "data": data, "train": settings})


def raw_ids(trained: Trained) -> torch.Tensor:
    return torch.tensor(trained.model.item_ids.to_numpy())


@pytest.mark.ray
def test_cold_items_have_rows_at_the_end_of_the_vocabulary_and_their_bags_lack_them(trained: Trained) -> None:
    items = trained.dataset.items()
    assert items["id"].to_pylist()[-COLD:] == list(range(ITEMS - COLD, ITEMS))
    assert items["count"].to_pylist()[-COLD:] == [0] * COLD
    bags, counts, cold = load_items(trained.dataset)
    assert torch.equal(cold, cold_mask(counts, feature_specs(trained.dataset.manifest.item_features)))
    assert cold[-COLD:].all()
    sizes = bags.offsets.diff()
    assert sizes[2:].tolist() == (2 - cold[2:].int()).tolist(), "a cold item is its category alone"


@pytest.mark.ray
def test_cold_items_of_equal_features_have_equal_vectors_and_others_have_not(trained: Trained) -> None:
    vectors, ids = trained.model.retriever.item_vectors[-COLD:], raw_ids(trained)[-COLD:].tolist()
    for a in range(COLD):
        for b in range(a):
            alike = trained.category[ids[a]] == trained.category[ids[b]]
            assert torch.equal(vectors[a], vectors[b]) == alike, (ids[a], ids[b])


@pytest.mark.ray
def test_a_cold_item_is_nearest_to_the_items_of_its_own_category(trained: Trained) -> None:
    vectors, ids = torch.nn.functional.normalize(trained.model.retriever.item_vectors[2:], dim=-1), raw_ids(trained)
    names = sorted(set(trained.category))
    code = torch.tensor([names.index(trained.category[item]) for item in ids.tolist()])
    warm = ids < ITEMS - COLD
    cosine = vectors[~warm] @ vectors[warm].T
    by_category = torch.stack([cosine[:, code[warm] == place].mean(1) for place in range(len(names))], 1)
    nearest = by_category.argmax(1) == code[~warm]
    assert nearest.double().mean() > 0.9, "chance is 1 / 8"


@pytest.mark.ray
def test_users_are_recommended_cold_items_of_their_own_interests(trained: Trained) -> None:
    table = trained.dataset.table("test")
    sequences = to_sequences(table, [])
    lists = trained.model.recommend(sequences, 20, exclude_seen=True)
    users = trained.dataset.vocabulary("users")["id"].take(table["user"]).to_numpy()
    cold = lists.filter(pc.greater_equal(lists["id"], ITEMS - COLD))
    names = [f"category {cluster}" for cluster in range(CLUSTERS)]
    fits = [
        name in [names[cluster] for cluster in trained.clusters[users[row]]]
        for row, name in zip(cold["user"].to_pylist(), cold["show_category"].to_pylist(), strict=True)
    ]
    assert np.mean(fits) > 0.8, "chance is 3 / 8"
    assert len(fits) / len(lists) > 0.14, "a fifth of the catalogue; a tenth of the lists if they were negatives"


@pytest.mark.ray
def test_evaluation_ranks_the_catalogue_with_its_cold_items(trained: Trained) -> None:
    report = pipelines.evaluation.evaluate.evaluate(trained.config, model=str(trained.model.path))
    assert report.catalogue == ITEMS
    assert all(0 < model.metrics["coverage@20"] <= 1 for model in report.models)
    popularity = report.models[1]
    assert popularity.name == "popularity"
    assert popularity.metrics["coverage@20"] == pytest.approx(20 / ITEMS), "what nobody had is not popular"
    assert sum(band.size for band in report.models[0].by_popularity) == report.targets


@pytest.mark.ray
def test_recommend_writes_cold_items_with_what_is_shown_of_them(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    users = [str(user) for user in trained.dataset.vocabulary("users")["id"].to_pylist()[:40]]
    recommend(trained.config, users, out, model=str(trained.model.path))
    lists = pq.read_table(out)
    cold = lists.filter(pc.greater_equal(lists["id"], ITEMS - COLD))
    assert cold.num_rows > 0
    (shown,) = [name for name in lists.column_names if name.endswith("category")]
    expected = pa.array(trained.category).take(cold["id"].combine_chunks())
    assert cold[shown].to_pylist() == expected.to_pylist()

"""From a frame to lists and figures in Python: the stages of the command line, without their tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import mind
from tests.pipelines.planted import SETTINGS

SECTIONS = {name: SETTINGS[name] for name in ("evaluate", "tracking", "ray")}
TRAINED = {
    "model": {**SETTINGS["model"], "hidden": (16,)},
    "loss": SETTINGS["loss"],
    "train": {**SETTINGS["train"], "workers": 1, "epochs": 1},
}


@pytest.fixture(scope="module")
def events(planted_log: Path) -> pd.DataFrame:
    return pq.read_table(planted_log / "events").to_pandas()


@pytest.fixture(scope="module")
def dataset(planted_log: Path, events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> (
    mind.Dataset
):  # fmt: skip
    return mind.Dataset.from_frame(
        events,
        user="user_id",
        item="item_id",
        items=pl.read_parquet(planted_log / "items.parquet"),
        item_features=["category", "price"],
        show=["category"],
        profile=pq.read_table(planted_log / "profile.parquet"),
        profile_features={"group": {}},
        name="planted",
        home=tmp_path_factory.mktemp("home"),
        **SECTIONS,
    )


@pytest.fixture(scope="module")
def model(dataset: mind.Dataset) -> mind.FittedModel:
    return dataset.fit(**TRAINED)


def test_the_dataset_is_that_of_the_log(dataset: mind.Dataset, events: pd.DataFrame, planted_home: Path) -> None:
    from pipelines.dataset.dataset import Dataset

    made = Dataset.open(planted_home / "datasets" / "planted").manifest
    stored = Dataset.open(dataset.path).manifest
    assert (stored.users, stored.items, stored.events) == (made.users, made.items, made.events)
    assert dataset.counts["events"] == len(events) - sum(dataset.set_aside.values())
    assert [info.kind for info in stored.item_features] == ["categorical", "numeric"]
    assert dataset.quality_page.is_file()
    assert "6,000 events" in repr(dataset)
    assert "<table>" in dataset._repr_html_()


def test_the_same_frame_makes_nothing_again_and_another_one_takes_its_place(
    events: pd.DataFrame, tmp_path: Path, ray_cluster: None
) -> None:
    def made(frame: object) -> tuple[mind.Dataset, int, list[str]]:
        made = mind.Dataset.from_frame(frame, user="user_id", item="item_id", home=tmp_path, **SECTIONS)
        return (
            made,
            (made.path / "manifest.json").stat().st_mtime_ns,
            [p.name for p in made.conf.parent.glob("*.parq*")],
        )

    few = events[events["user_id"] < 30].reset_index(drop=True)
    _, first, files = made(few)
    _, second, same = made(pl.from_pandas(few))
    assert (first, files) == (second, same)
    again, third, other = made(pa.Table.from_pandas(few.iloc[:-1]))
    assert third > first
    assert len(other) == 1
    assert other != files
    assert mind.Dataset.from_config(again.conf).counts == again.counts
    assert yaml.safe_load(again.conf.read_text())["data"]["events"]["user"] == "user_id"


def test_a_model_is_fitted_once_and_found_again(dataset: mind.Dataset, model: mind.FittedModel) -> None:
    assert model.metrics["validation/recall@20"] > 0
    assert dataset.fit(**TRAINED).path == model.path
    assert dataset.fitted().path == model.path
    assert mind.load(model.path).card.name == model.card.name
    with pytest.raises(mind.UserError, match=r"^fit\(\): epochs: unknown key, did you mean train.epochs\?$"):
        dataset.fit(epochs=3)
    with pytest.raises(mind.UserError, match=r"^fit\(\): train.epochs=0: must be >= 1$"):
        dataset.fit(train={"epochs": 0})
    with pytest.raises(mind.UserError, match=r"^fit\(\): data: belongs to the dataset"):
        dataset.fit(data={})


def test_lists_of_users_of_histories_and_of_all(model: mind.FittedModel) -> None:
    lists = model.recommend([3, 5], n=4)
    assert lists["user"].tolist() == [3] * 4 + [5] * 4
    assert lists["rank"].tolist() == [1, 2, 3, 4] * 2
    assert {"score", "interest", "id", "show_category"} <= set(lists)
    cheap = model.recommend([3], n=4, lists={"where": "price < 10"}, why=True)
    assert cheap["share"].between(0, 1).all()
    of = model.recommend(histories=[lists["id"].tolist(), [-1]], n=3)
    assert of["history"].tolist() == [0, 0, 0, 1, 1, 1]
    assert of["interest"].tolist()[3:] == [-1] * 3
    assert len(model.recommend(n=2)) == 2 * 200
    for wrong, message in (
        ({"users": "3"}, "must be a list of ids"),
        ({"users": ["nobody"]}, "has no such user"),
        ({"users": [3], "histories": [[1]]}, "give either users or histories"),
        ({"users": [3], "lists": {"where": "prize < 3"}}, "did you mean price"),
    ):
        with pytest.raises(mind.UserError, match=message):
            model.recommend(**wrong)  # type: ignore[arg-type]


def test_an_evaluation_has_figures_intervals_bands_and_a_picture(model: mind.FittedModel) -> None:
    found = model.evaluate("validation")
    low, high = found.intervals["recall@20"]
    assert low <= found.metrics["recall@20"] <= high
    assert found.frame.loc["default", "recall@20"] == found.metrics["recall@20"]
    assert found.frame.index[1] == "popularity"
    assert found.by_history["size"].sum() == found.report.users
    assert found.by_popularity["size"].sum() == found.report.targets
    assert set(found.differences["metric"]) >= {"recall@20"}
    assert found.plot().axes
    assert (found.folder / "report.json").is_file()
    assert "95 % interval" in repr(found)
    assert "<table" in found._repr_html_()


def test_interests_and_similar_items(model: mind.FittedModel) -> None:
    found = model.interests(3, n=5)
    assert found.vectors.shape == (len(found), 16)
    assert sum(each.share for each in found) == pytest.approx(1)
    assert all(len(each.finds) == 5 for each in found)
    best = model.recommend([3], n=1, model=None)["id"].item()
    assert best in {item for each in found for item in each.finds}
    assert len(found.frame) == len(found)
    assert "of the history" in repr(found)
    assert "<table>" in found._repr_html_()
    ids = model.recommend([3], n=5)["id"].tolist()
    np.testing.assert_allclose(model.interests(history=ids)[0].vector.shape, (16,))
    alike = model.similar(ids[0], n=3)
    assert alike["cosine"].is_monotonic_decreasing
    assert len(model.similar(ids[:2], n=3)) == 6
    with pytest.raises(mind.UserError, match="has no such item"):
        model.similar(-5)
    with pytest.raises(mind.UserError, match="none of its 1 items"):
        model.interests(history=[-5])
    with pytest.raises(mind.UserError, match="give either a user or history="):
        model.interests()

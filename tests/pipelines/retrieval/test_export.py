"""What is exported is what the model knows: a brute-force search over the files gives the lists."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from mind_core.sequences import full_histories
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.models.artifact import SavedModel, load_model
from pipelines.retrieval.export import Export, export, export_folder
from pipelines.retrieval.recommend import recommend
from pipelines.storage.locks import exclusive
from tests.pipelines.planted import save_untrained

pytestmark = pytest.mark.ray
NAME = "planted-default-ee0b0e0b0e"


@pytest.fixture(scope="module")
def model(config: Config) -> SavedModel:
    return load_model(save_untrained(config, NAME))


@pytest.fixture(scope="module")
def exported(config: Config, model: SavedModel) -> Path:
    return export(config, model=NAME)


@pytest.fixture(scope="module")
def as_evaluated(config: Config, model: SavedModel) -> Path:
    return export(config, model=NAME, latest=False)


def interests_of(model: SavedModel, table: pa.Table, latest: bool) -> tuple[torch.Tensor, torch.Tensor]:
    sequences = model.sequences(table, latest)
    return model.retriever.interests(full_histories(sequences, torch.arange(len(table)), model.retriever.view))


def rows(folder: Path, kind: str) -> pa.Table:
    return pq.read_table(folder / kind).combine_chunks()


def with_top(config: Config, n: int) -> Config:
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"top_n": n})})


def test_a_search_over_the_exported_vectors_gives_the_exported_lists(exported: Path) -> None:
    items, users, lists = (rows(exported, kind) for kind in ("items", "users", "lists"))
    vectors = np.array(items["vector"].to_pylist(), np.float32)
    place = {item: number for number, item in enumerate(items["id"].to_pylist())}
    found: dict[Any, list[tuple[Any, float]]] = {}
    for row in lists.to_pylist():
        found.setdefault(row["user"], []).append((row["id"], row["score"]))
    for row in users.to_pylist():
        scores = (np.array(row["interests"], np.float32) @ vectors.T).max(0)
        assert any(row["own_scores"]), "the model remembers"
        for item, more in zip(row["own_items"], row["own_scores"], strict=True):
            scores[place[item]] += more
        listed = found[row["user"]]
        np.testing.assert_allclose([score for _, score in listed], np.sort(scores)[::-1][:20], rtol=1e-5)
        own = scores[[place[item] for item, _ in listed]]
        np.testing.assert_allclose(own, [score for _, score in listed], rtol=1e-5)


def test_the_newest_events_count_unless_it_is_told_otherwise(
    config: Config, model: SavedModel, exported: Path, as_evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = [Export.read(folder) for folder in (exported, as_evaluated)]
    assert [mark.latest for mark in marks if mark] == [True, False]
    dataset = Dataset.open(config.dataset_path)
    table = dataset.table("test")
    ids = dataset.vocabulary("users")["id"].take(table["user"]).to_pylist()
    vectors, own = interests_of(model, table, latest=True)
    stored = {row["user"]: row["interests"] for row in rows(exported, "users").to_pylist()}
    for user, mine, mask in zip(ids, vectors, own, strict=True):
        assert torch.equal(torch.tensor(stored[user]), mine[mask])
    export(config, model=NAME)
    assert "inferred from all events, the held-out ones too" in capsys.readouterr().out
    export(config, model=NAME, latest=False)
    assert "inferred from the events before the held-out ones" in capsys.readouterr().out


def test_vectors_are_the_bits_that_evaluate_scores_with(config: Config, model: SavedModel, as_evaluated: Path) -> None:
    exported = as_evaluated
    items = torch.tensor(rows(exported, "items")["vector"].to_pylist())
    assert torch.equal(items, model.retriever.item_vectors[2:])
    dataset = Dataset.open(config.dataset_path)
    table = dataset.table("test")
    vectors, own = interests_of(model, table, latest=False)
    ids = dataset.vocabulary("users")["id"].take(table["user"]).to_pylist()
    stored = {row["user"]: row["interests"] for row in rows(exported, "users").to_pylist()}
    for user, mine, mask in zip(ids, vectors, own, strict=True):
        assert torch.equal(torch.tensor(stored[user]), mine[mask])


@pytest.mark.parametrize("latest", [False, True])
def test_lists_are_those_of_recommend(config: Config, model: SavedModel, tmp_path: Path, latest: bool) -> None:
    folder = export(config, model=NAME, latest=latest)
    written = recommend(config, out=tmp_path / "all.parquet", model=NAME, latest=latest)
    assert written is not None
    columns = ["user", "rank", "id", "score", "interest"]
    order = [("user", "ascending"), ("rank", "ascending")]
    assert rows(folder, "lists").sort_by(order).equals(pq.read_table(written, columns=columns).sort_by(order))


def test_every_user_with_a_history_comes_once_and_the_mark_counts_them(config: Config, exported: Path) -> None:
    users, mark = rows(exported, "users"), Export.read(exported)
    assert rows(exported, "items")["number"].to_pylist() == list(range(len(rows(exported, "items"))))
    assert mark is not None
    dataset = Dataset.open(config.dataset_path)
    known = {user for split in ("train", "validation", "test") for user in dataset.table(split)["user"].to_pylist()}  # type: ignore[arg-type]
    assert sorted(users["user"].to_pylist()) == sorted(
        dataset.vocabulary("users")["id"].take(pa.array(known)).to_pylist()
    )
    assert mark.counts.users == len(users)
    assert mark.counts.interests == sum(len(each) for each in users["interests"].to_pylist())
    assert mark.counts.recommendations == len(rows(exported, "lists"))
    assert (mark.items, mark.dim) == (dataset.manifest.items, 16)
    assert mark.fingerprint == dataset.manifest.fingerprint


def test_an_export_that_is_whole_is_not_made_again(config: Config, exported: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in exported.rglob("*.*")}
    assert export(config, model=NAME) == exported
    assert {file: file.stat().st_mtime_ns for file in exported.rglob("*.*")} == before


def test_other_lists_are_another_export(config: Config, exported: Path) -> None:
    other = export(with_top(config, 5), model=NAME)
    assert other != exported
    assert rows(other, "lists")["rank"].to_pylist()[:6] == [1, 2, 3, 4, 5, 1]


def test_an_export_that_was_killed_keeps_its_parts(
    config: Config, model: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an export without its mark and without the lists of one part
    monkeypatch.setattr("pipelines.retrieval.export.PORTION_USERS", 64)
    other = with_top(config, 7)
    folder = export(other, model=NAME)
    mark = json.loads((folder / "export.json").read_text())
    (folder / "export.json").unlink()
    parts = sorted((folder / "lists").iterdir())
    assert len(parts) > 3
    parts[0].unlink()
    kept = {part: part.stat().st_mtime_ns for part in parts[1:]}
    assert Export.read(folder) is None
    # when it is gone on with
    assert export(other, model=NAME) == folder
    # then only that one is made, and all is as it was
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert json.loads((folder / "export.json").read_text()) == mark


def test_an_export_made_in_this_process_has_the_bytes_of_rays(
    config: Config, model: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.retrieval.export.PORTION_USERS", 64)
    folder = export(with_top(config, 8), model=NAME)
    on_ray = {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.parquet")}
    shutil.rmtree(folder)
    monkeypatch.setattr("pipelines.models.over_users.HERE_PAIRS", 10**9)
    monkeypatch.setattr("pipelines.models.users.on_ray.ray_session", None)
    assert export(with_top(config, 8), model=NAME) == folder
    assert {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.parquet")} == on_ray
    assert len(on_ray) > 6


def test_what_a_killed_writer_left_is_no_part_of_the_folder(config: Config, model: SavedModel) -> None:
    other = with_top(config, 6)
    folder = export_folder(other, model.card)
    (folder / "users").mkdir(parents=True)
    (folder / "users" / "part-000000000000.parquet.writing-0123456789ab").write_bytes(b"PAR1 torn")
    for kind in ("users", "lists"):  # and of one that had cut the users otherwise
        (folder / kind).mkdir(exist_ok=True)
        (folder / kind / "part-000000000077.parquet").write_bytes(b"PAR1")
    assert export(other, model=NAME) == folder
    assert len(rows(folder, "users")) == len(set(rows(folder, "users")["user"].to_pylist()))


def test_two_do_not_write_one_export(config: Config, model: SavedModel) -> None:
    other = with_top(config, 8)
    folder = export_folder(other, model.card)
    lock = folder.with_name(f".{folder.name}.lock")
    with exclusive(lock, "busy"), pytest.raises(UserError, match="another mind export is writing it"):
        export(other, model=NAME)


def test_popularity_is_exported_too(config: Config, tmp_path: Path) -> None:
    """A model of one constant vector, d = 1; its run is not counted with those of other tests."""
    from pipelines.training.train import train

    (tmp_path / "datasets").symlink_to(config.home_path / "datasets")
    popular = config.model_copy(
        update={
            "home": str(tmp_path),
            "preset": "popularity",
            "model": config.model.__class__(encoder="popularity", interests=1, dim=16, max_history=12),
        }
    )
    folder = export(popular, model=train(popular).model.name)
    made = Export.read(folder)
    assert made is not None
    assert made.dim == 1
    assert {len(each) for each in rows(folder, "users")["interests"].to_pylist()} == {1}


def test_without_a_model_it_is_one_line(config: Config) -> None:
    with pytest.raises(UserError, match="no model of preset paper yet"):
        export(config.model_copy(update={"preset": "paper"}))


def test_new_items_are_in_the_items_and_the_lists(config: Config, model: SavedModel, tmp_path: Path) -> None:
    assert config.data.items is not None
    table = pq.read_table(config.data.items.path)
    new = table.set_column(table.schema.get_field_index("item_id"), "item_id", pc.add(table["item_id"], 10_000_000))
    pq.write_table(new, tmp_path / "new.parquet")
    folder = export(config, model=NAME, items=str(tmp_path / "new.parquet"))
    made, items = Export.read(folder), rows(folder, "items")
    assert made is not None
    assert (made.items, made.new_items) == (len(items), len(new))
    assert items["id"].to_pylist()[-len(new) :] == new["item_id"].to_pylist()
    assert set(rows(folder, "lists")["id"].to_pylist()) & set(new["item_id"].to_pylist())
    assert folder != export_folder(config, model.card)


def test_an_index_comes_to_an_export_that_is_there(config: Config, exported: Path) -> None:
    pytest.importorskip("faiss", reason="faiss-cpu is not installed (the extra `index`)")
    before = (exported / "export.json").stat().st_mtime_ns
    assert export(config, model=NAME, index="hnsw") == exported
    report = json.loads((exported / "index-hnsw" / "report.json").read_text())
    assert report["items"] == len(rows(exported, "items"))
    assert report["measured"][-1]["recall"] > 0.95
    assert (exported / "export.json").stat().st_mtime_ns == before
    assert pq.read_table(exported / "index-hnsw" / "ids.parquet").equals(
        rows(exported, "items").select(["number", "id"])
    )
    built = (exported / "index-hnsw" / "items.faiss").stat().st_mtime_ns
    export(config, model=NAME, index="hnsw")
    assert (exported / "index-hnsw" / "items.faiss").stat().st_mtime_ns == built


def test_candidates_of_an_index_and_own_items_beside_them_are_the_list(config: Config, exported: Path) -> None:
    """The three steps of docs/export.md, from the files alone."""
    pytest.importorskip("faiss", reason="faiss-cpu is not installed (the extra `index`)")
    from pipelines.retrieval.index import ItemIndex

    export(config, model=NAME, index="flat")
    index = ItemIndex.load(exported / "index-flat")
    items, users, lists = (rows(exported, kind) for kind in ("items", "users", "lists"))
    ids, vectors = items["id"].to_pylist(), np.stack(items["vector"].to_numpy(zero_copy_only=False))
    place = {item: number for number, item in enumerate(ids)}
    listed: dict[Any, list[Any]] = {}
    for row in lists.to_pylist():
        listed.setdefault(row["user"], []).append(row["id"])
    same = 0
    for row in users.to_pylist():
        interests = np.array(row["interests"], np.float32)
        scores, found = index.search(interests, 20 + len(row["own_items"]))
        best: dict[Any, float] = {}
        for score, number in zip(scores.flatten().tolist(), found.flatten().tolist(), strict=True):
            if number >= 0 and ids[number] not in row["own_items"]:
                best[ids[number]] = max(score, best.get(ids[number], -9.0))
        for item, more in zip(row["own_items"], row["own_scores"], strict=True):
            best[item] = float((interests @ vectors[place[item]]).max()) + more
        same += sorted(best, key=lambda item: -best[item])[:20] == listed[row["user"]]
    assert same >= 0.98 * len(users), "but for scores that differ in the last bit"

"""Every way to a list obeys the rules of lists, and says why; strangers and items get lists too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from mind_core.inference import MINDRetriever, PopularityRetriever
from mind_core.sequences import Sequences, full_histories
from pipelines.config.schema import Config, ListsConfig
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import train_counts
from pipelines.errors import UserError
from pipelines.lists.rules import rules_of
from pipelines.models.artifact import SavedModel, load_model
from pipelines.retrieval.export import Export, export, export_folder
from pipelines.retrieval.reasons import with_reasons
from pipelines.retrieval.recommend import recommend
from pipelines.retrieval.similar import similar
from pipelines.retrieval.strangers import recommend_history
from tests.pipelines.planted import save_untrained

pytestmark = pytest.mark.ray
NAME = "planted-default-4u1e5"


@pytest.fixture(scope="module")
def model(config: Config) -> SavedModel:
    return load_model(save_untrained(config, NAME))


@pytest.fixture(scope="module")
def category(config: Config) -> dict[Any, Any]:
    """Of each item, as the user's own table has it."""
    assert config.data.items is not None
    raw = pd.read_parquet(config.data.items.path)
    return dict(zip(raw["item_id"], raw["category"], strict=True))


def ruled(config: Config, **settings: Any) -> Config:
    return config.model_copy(update={"lists": ListsConfig.model_validate(settings)})


def test_an_artifact_knows_what_filters_need_without_the_dataset(
    config: Config, model: SavedModel, category: dict[Any, Any]
) -> None:
    columns = model.columns()
    assert set(columns.names) == {"id", "count", "category", "price"}
    ids = model.item_ids.to_pylist()
    assert columns.column("category", "test").to_pylist() == [category[each] for each in ids]
    assert not [name for name in model.items.column_names if name.startswith("raw_")], "read when it is asked for"
    assert not [name for name in Dataset.open(config.dataset_path).items().column_names if name.startswith("raw_")]


def test_items_that_were_added_to_a_model_have_empty_values_of_features_that_are_not_shown(model: SavedModel) -> None:
    more = SavedModel(model.path, model.card, model.retriever, pa.concat_tables([model.items, model.items.slice(0, 2)]))
    values = more.columns().column("category", "test")
    assert len(values) == len(more.columns()) == len(model.items) + 2
    assert values[-2:].null_count == values.null_count == 2


@pytest.mark.parametrize("policy", ["best", "quota", "round_robin", "greedy"])
def test_lists_of_some_of_all_and_of_an_export_are_the_same_and_obey(
    config: Config, model: SavedModel, users: list[int], category: dict[Any, Any], tmp_path: Path, policy: str
) -> None:
    kinds = sorted(set(category.values()))
    (tmp_path / "deny.txt").write_text("\n".join(map(str, model.item_ids[:3].to_pylist())))
    settings = {"policy": policy, "cap": {"category": 4}, "deny": [str(tmp_path / "deny.txt")]}
    settings |= {"where": f"category != '{kinds[0]}'"} | ({"diversity": 0.1} if policy == "greedy" else {})
    asked = ruled(config, **settings)
    written = recommend(asked, out=tmp_path / "all.parquet", model=NAME)
    assert written is not None
    lists = pq.read_table(written)
    for user in (users[0], users[57], users[-1]):
        mine = lists.filter(pc.equal(lists["user"], user))
        found = [category[each] for each in mine["id"].to_pylist()]
        assert len(found) == 20
        assert kinds[0] not in found
        assert max(found.count(kind) for kind in kinds) <= 4
        assert not set(mine["id"].to_pylist()) & set(model.item_ids[:3].to_pylist())
        alone = recommend(asked, [str(user)], tmp_path / "one.parquet", NAME)
        assert alone is not None
        assert pq.read_table(alone).equals(mine.combine_chunks())
    if policy == "greedy":
        folder = export(asked, model=NAME, latest=False)
        order = [("user", "ascending"), ("rank", "ascending")]
        of_export = pq.read_table(folder / "lists").combine_chunks().sort_by(order)
        assert of_export.equals(lists.select(of_export.column_names).combine_chunks().sort_by(order))
        made = Export.read(folder)
        assert made is not None
        assert made.rules["policy"] == "greedy"
        # another list of ids is another export; without rules the folder is the one it always was
        (tmp_path / "deny.txt").write_text("\n".join(map(str, model.item_ids[:4].to_pylist())))
        assert export_folder(asked, model.card, False) != folder != export_folder(config, model.card, False)


def test_a_filter_that_cannot_be_asked_is_one_line_before_anything_starts(config: Config, model: SavedModel) -> None:
    with pytest.raises(UserError, match=r"lists.where: no column 'colour'; there are .*category") as error:
        recommend(ruled(config, where="colour = 'red'"), model=NAME)
    assert "\n" not in str(error.value)


# --- why ---


def test_reasons_are_the_couplings_of_the_interest_that_found_the_item(model: SavedModel, sequences: Sequences) -> None:
    lists = with_reasons(model, sequences, model.recommend(sequences, 5, exclude_seen=False))
    retriever = model.retriever
    assert isinstance(retriever, MINDRetriever)
    histories = full_histories(sequences, torch.arange(len(sequences)), retriever.view)
    vectors, own, weights = retriever.route(histories)
    memory = retriever.memory(histories, vectors, own)
    assert memory is not None
    ids = model.item_ids.to_pylist()
    for row in lists.slice(0, 60).to_pylist():
        mask = histories.mask[row["user"]]
        mine = weights[row["user"], row["interest"], : len(mask)][mask]
        assert row["share"] == pytest.approx(float(mine.sum() / mask.sum()), abs=1e-6)
        items = [ids[item - 2] for item in histories.items[row["user"]][mask].tolist()]
        assert set(row["because"]) <= set(items)
        assert len(set(row["because"])) == len(row["because"]) == min(3, len(set(items)))
        assert row["coupling"] == sorted(row["coupling"], reverse=True)
        assert row["coupling"][0] == pytest.approx(float(mine.max()), abs=1e-6)
        remembered = [float(m) for m, item in zip(memory[row["user"]][mask], items, strict=True) if item == row["id"]]
        assert row["remembered"] == pytest.approx(sum(remembered), abs=1e-6)
        assert row["again"] or not row["remembered"]


def test_why_is_printed_and_written(
    config: Config, model: SavedModel, users: list[int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recommend(config, [str(users[0])], model=NAME, why=True)
    printed = capsys.readouterr().out
    assert "of the history; most of it from " in printed
    recommend(config, [str(users[0])], model=NAME)
    assert "most of it from" not in capsys.readouterr().out
    for name in ("one.csv", "one.jsonl", "one.parquet"):
        assert recommend(config, [str(users[0])], tmp_path / name, NAME, why=True) is not None
    assert {"share", "because", "coupling", "remembered"} <= set(pq.read_schema(tmp_path / "one.parquet").names)
    assert pd.read_csv(tmp_path / "one.csv")["because"].str.count(r"\|").max() == 2


def test_a_model_without_interests_gives_no_reasons(model: SavedModel, sequences: Sequences) -> None:
    retriever = PopularityRetriever(train_counts(model.items), 10)
    popular = SavedModel(model.path, model.card, retriever, model.items)
    lists = with_reasons(popular, sequences, popular.recommend(sequences, 3, exclude_seen=False))
    assert lists["because"].null_count == len(lists)


# --- strangers ---


def test_a_history_gets_the_list_that_the_model_gives_it(
    config: Config, model: SavedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ids = model.item_ids.to_pylist()
    history = [ids[7], ids[3], ids[90]]
    expected = model.recommend(model.encode(pa.array([history])), 20, exclude_seen=False)
    asked = [str(ids[7]), "nobody", str(ids[3]), str(ids[90]), "-1"]
    written = recommend_history(config, asked, tmp_path / "list.parquet", NAME)
    assert written is not None
    assert pq.read_table(written).equals(expected.drop_columns("user"))
    said = capfd.readouterr()
    assert "--history: 2 of 5 ids are of no item of the model and are left out: nobody, -1" in said.err + said.out
    recommend_history(config, asked, model=NAME, why=True)
    assert "User of --history: 3 behaviours" in capfd.readouterr().out


@pytest.mark.parametrize("asked", [[], ["nobody", "nothing"]])
def test_a_history_of_nothing_known_gets_the_popular_list_and_is_told(
    config: Config, model: SavedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    written = recommend_history(config, asked, tmp_path / "list.parquet", NAME, why=True)
    assert written is not None
    counts = np.array(model.items["train_count"])
    ids = np.array(model.item_ids)[np.argsort(-counts, kind="stable")[:20]]
    assert pq.read_table(written)["id"].to_pylist() == ids.tolist()
    said = capfd.readouterr()
    assert "No item of the history is known to the model: this is the popular list" in said.err + said.out


# --- similar items ---


def test_similar_items_have_the_highest_cosine_and_obey_filters(
    config: Config, model: SavedModel, category: dict[Any, Any], tmp_path: Path
) -> None:
    ids = model.item_ids.to_pylist()
    kind = category[ids[4]]
    asked = ruled(config, where=f"category = '{kind}'")
    for settings, wanted in ((config, set(ids)), (asked, {each for each in ids if category[each] == kind})):
        written = similar(settings, [str(ids[4]), str(ids[80])], 5, tmp_path / "similar.parquet", NAME)
        assert written is not None
        found = pq.read_table(written).to_pylist()
        for item in (ids[4], ids[80]):
            vectors = torch.nn.functional.normalize(model.retriever.item_vectors[2:].double(), dim=1)
            cosine = (vectors @ vectors[ids.index(item)]).tolist()
            best = sorted((-c, i) for i, c in enumerate(cosine) if ids[i] != item and ids[i] in wanted)[:5]
            mine = [row for row in found if row["item"] == item]
            assert [row["id"] for row in mine] == [ids[i] for _, i in best]
            assert [row["rank"] for row in mine] == [1, 2, 3, 4, 5]
            assert [row["cosine"] for row in mine] == pytest.approx([-c for c, _ in best], abs=1e-5)


def test_similar_items_are_printed_and_an_unknown_item_is_one_line(
    config: Config, model: SavedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    item = str(model.item_ids[4])
    similar(config, [item], 5, model=NAME)
    assert f"Like {item} ({item})" in capsys.readouterr().out
    for asked in ("nothing", "99999", ""):
        with pytest.raises(UserError, match=f"--item {asked}: .* has no such item; some that it has: ") as error:
            similar(config, [asked], model=NAME)
        assert "\n" not in str(error.value)


def test_rules_hold_for_whoever_has_only_the_artifact(
    config: Config, model: SavedModel, sequences: Sequences, category: dict[Any, Any]
) -> None:
    read = rules_of(ruled(config, policy="round_robin", where="price is not null"), model.columns())
    lists = model.recommend_shelves(sequences, {"new": 6}, read.rules)
    assert len(lists) == 6 * len(sequences)
    assert read.told == [f"where price is not null: {len(category):,} of {len(category):,} items"]

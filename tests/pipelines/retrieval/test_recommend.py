"""Recommendation: every way to a list gives the same list, printed or written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

import mind_core.inference
from mind_core.evaluation import evaluate
from mind_core.sequences import Sequences
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import feature_specs, to_sequences, to_targets
from pipelines.errors import UserError
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.users.on_ray import actors_of
from pipelines.retrieval.list_files import write_lists
from pipelines.retrieval.recommend import recommend
from pipelines.retrieval.show_lists import show_lists
from tests.pipelines.planted import save_untrained

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def model(config: Config) -> SavedModel:
    return load_model(save_untrained(config))


def profile_of(config: Config, users: list[int]) -> pa.Table:
    """Their raw profiles, as a caller of the model would send them."""
    assert config.data.profile is not None
    raw = pd.read_parquet(config.data.profile.path).set_index("user_id")
    return pa.table({"group": raw["group"].reindex(users).to_numpy()})


def with_seen(config: Config, seen: str) -> Config:
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"seen": seen})})


@pytest.mark.parametrize("seen", ["keep", "filter"])
def test_every_way_to_a_list_gives_the_same_items_and_scores(
    config: Config,
    model: SavedModel,
    table: pa.Table,
    sequences: Sequences,
    users: list[int],
    tmp_path: Path,
    seen: str,
) -> None:
    config, exclude_seen = with_seen(config, seen), seen == "filter"
    everyone, ids = torch.arange(len(sequences)), np.array(model.item_ids)
    # given the lists of all users in one batch
    items, scores, _ = mind_core.inference.recommend(
        model.retriever, sequences, everyone, 20, exclude_seen=exclude_seen
    )

    # then those of training-time evaluation and `mind evaluate`
    outcome = evaluate(model.retriever, sequences, to_targets(table), everyone, [20], exclude_seen=exclude_seen)
    assert torch.equal(outcome.top_items, items[outcome.users])

    # those of users alone, and of odd batches
    for batch in (everyone[:1], everyone[7:8], everyone[3:50], everyone[-1:]):
        some, their_scores, _ = mind_core.inference.recommend(
            model.retriever, sequences, batch, 20, exclude_seen=exclude_seen
        )
        assert torch.equal(some, items[batch])
        assert torch.equal(their_scores, scores[batch])

    # those of the artifact and of the MLflow model, from raw ids and raw profiles
    from pipelines.models.answers import Answerer
    from pipelines.models.serving import ServedRetriever

    served = ServedRetriever()
    served.answerer = Answerer(model)
    for batch in (everyone, everyone[9:10]):
        raw = [ids[np.array(table["items"][int(row)].as_py()) - 2].tolist() for row in batch]
        profile = profile_of(config, [users[int(row)] for row in batch])
        lists = model.recommend(model.encode(pa.array(raw), profile), 20, exclude_seen=exclude_seen)
        assert lists["id"].to_pylist() == ids[items[batch].flatten().numpy() - 2].tolist()
        assert torch.equal(torch.tensor(lists["score"].to_numpy()), scores[batch].flatten())
        request = pd.DataFrame({"history": raw, "group": profile["group"].to_pylist()})
        answer = served.predict(None, request, {"k": 20, "exclude_seen": exclude_seen})  # type: ignore[arg-type]
        assert answer["items"].tolist() == ids[items[batch].numpy() - 2].tolist()
        assert answer["scores"].tolist() == scores[batch].tolist()

    # and those that `mind recommend` writes, over Ray and without
    written = recommend(config, out=tmp_path / "all.parquet", model=str(model.path))
    assert written is not None
    lists = pq.read_table(written)
    for row in (0, 57, len(users) - 1):
        mine = lists.filter(pc.equal(lists["user"], users[row]))
        assert mine["rank"].to_pylist() == list(range(1, 21))
        assert mine["id"].to_pylist() == ids[items[row].numpy() - 2].tolist()
        assert torch.equal(torch.tensor(mine["score"].to_numpy()), scores[row])
        alone = recommend(config, [str(users[row])], tmp_path / "one.parquet", str(model.path))
        assert alone is not None
        assert pq.read_table(alone).equals(mine.combine_chunks())


def test_each_item_says_how_often_it_is_in_the_whole_history(
    config: Config, model: SavedModel, table: pa.Table, users: list[int], tmp_path: Path
) -> None:
    ids = np.array(model.item_ids)
    written = recommend(with_seen(config, "keep"), out=tmp_path / "all.parquet", model=str(model.path))
    assert written is not None
    lists = pq.read_table(written)
    assert lists.schema.field("again").type == pa.int32()
    of_test_users = lists.filter(pc.is_in(lists["user"], pa.array(users))).to_pylist()
    histories = {
        user: ids[np.array(items) - 2].tolist() for user, items in zip(users, table["items"].to_pylist(), strict=True)
    }
    assert [row["again"] for row in of_test_users] == [histories[r["user"]].count(r["id"]) for r in of_test_users]
    assert {row["again"] > 0 for row in of_test_users} == {True, False}
    filtered = recommend(with_seen(config, "filter"), out=tmp_path / "new.parquet", model=str(model.path))
    assert filtered is not None
    assert not any(pq.read_table(filtered)["again"].to_pylist())


def test_quotas_fill_two_shelves_of_the_same_order(
    config: Config, model: SavedModel, users: list[int], sequences: Sequences, tmp_path: Path
) -> None:
    quotas = {"seen": "keep", "again": 4, "new": 3}
    asked = config.model_copy(update={"evaluate": config.evaluate.model_copy(update=quotas)})
    written = recommend(asked, out=tmp_path / "all.parquet", model=str(model.path))
    assert written is not None
    lists = pq.read_table(written)
    items = model.items.num_rows
    whole = model.recommend(sequences, items, exclude_seen=False)
    for row in (0, 57, len(users) - 1):
        mine = lists.filter(pc.equal(lists["user"], users[row])).to_pylist()
        everything = whole.filter(pc.equal(whole["user"], row)).to_pylist()
        again = [each["id"] for each in everything if each["again"]][:4]
        new = [each["id"] for each in everything if not each["again"]][:3]
        assert [each["id"] for each in mine] == again + new
        assert [each["rank"] for each in mine] == [*range(1, len(again) + 1), 1, 2, 3]
        assert [each["again"] > 0 for each in mine] == [True] * len(again) + [False] * 3
        alone = recommend(asked, [str(users[row])], tmp_path / "one.parquet", str(model.path))
        assert alone is not None
        assert pq.read_table(alone).to_pylist() == mine


def test_printed_quotas_stand_under_headings_of_their_own(
    config: Config, model: SavedModel, users: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    quotas = {"seen": "keep", "again": 4, "new": 3}
    recommend(config.model_copy(update={"evaluate": config.evaluate.model_copy(update=quotas)}), [str(users[0])],
              model=str(model.path))  # fmt: skip
    again, new = capsys.readouterr().out.split("\nAgain\n")[1].split("\nNew\n")
    assert again.count("×") == 4
    assert "new" not in again.replace("newest", "")
    assert new.count(" new ") == 3
    assert "×" not in new
    recommend(with_seen(config, "filter"), [str(users[0])], model=str(model.path))
    printed = capsys.readouterr().out
    assert "again" not in printed
    assert " new " not in printed


def test_all_means_every_user_with_a_history_once(config: Config, model: SavedModel) -> None:
    dataset = Dataset.open(config.dataset_path)
    written = recommend(config, model=str(model.path))
    assert written == config.home_path / "recommendations" / f"{model.card.name}.parquet"
    lists = pq.read_table(written)
    known = set(dataset.table("train")["user"].to_pylist())
    expected = dataset.vocabulary("users")["id"].take(pa.array(sorted(known))).to_pylist()
    assert sorted(lists["user"].to_pylist()) == sorted(user for user in expected for _ in range(20))


def test_latest_infers_from_the_held_out_items_too(
    config: Config, model: SavedModel, table: pa.Table, users: list[int], tmp_path: Path
) -> None:
    ids = np.array(model.item_ids)
    whole = [ids[np.array(t["items"] + t["targets"]) - 2].tolist() for t in table.slice(5, 2).to_pylist()]
    expected = model.recommend(model.encode(pa.array(whole), profile_of(config, users[5:7])), 20, exclude_seen=False)
    asked = [str(user) for user in users[5:7]]
    found = recommend(config, asked, tmp_path / "latest.jsonl", str(model.path), latest=True)
    assert found is not None
    assert pd.read_json(found, lines=True)["id"].tolist() == expected["id"].to_pylist()


def test_an_unknown_user_is_one_line_with_some_that_exist(config: Config, model: SavedModel, users: list[int]) -> None:
    for asked in ("nobody", "1234567"):
        with pytest.raises(UserError, match=f"--user {asked}: .* has no such user; some that it has: ") as error:
            recommend(config, [asked], model=str(model.path))
        assert "\n" not in str(error.value)


def test_a_user_without_any_history_is_one_line(config: Config, model: SavedModel, tmp_path: Path) -> None:
    # given a dataset whose splits lack its first user, as a temporal split does where all events are held out
    home = tmp_path / "home"
    target = home / "datasets" / "planted"
    dataset = Dataset.open(config.dataset_path)
    for name in ("manifest.json", "items", "vocabularies"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to(config.dataset_path / name)
    for split in ("train", "validation", "test"):
        rows = dataset.table(split)  # type: ignore[arg-type]
        (target / "sequences" / split).mkdir(parents=True)
        pq.write_table(rows.filter(pc.greater(rows["user"], 0)), target / "sequences" / split / "part-00000.parquet")
    user = dataset.vocabulary("users")["id"][0].as_py()
    with pytest.raises(UserError, match=f"--user {user}: no history to infer from") as error:
        recommend(config.model_copy(update={"home": str(home)}), [str(user)], model=str(model.path))
    assert "\n" not in str(error.value)
    assert "--latest counts those too" in str(error.value)
    # when all events of the user are held out, as the dataset then says
    rows = dataset.table("test").slice(0, 1)
    newcomer = rows.set_column(0, "user", pa.array([0], pa.int64())).select(
        ["user", "items", "targets", "profile_group"]
    )
    (target / "sequences" / "newcomers").mkdir()
    empty = newcomer.set_column(1, "items", pa.array([[]], newcomer.schema.field("items").type))
    pq.write_table(empty, target / "sequences" / "newcomers" / "part-00000.parquet")
    own = config.model_copy(update={"home": str(home)})
    out = recommend(own, [str(user)], tmp_path / "newcomer.parquet", model=str(model.path), latest=True)
    assert out is not None
    assert pq.read_table(out)["again"].to_pylist()[:1] != []


def test_a_printed_list_is_grouped_by_interest_and_marks_the_held_out_items(
    config: Config,
    model: SavedModel,
    table: pa.Table,
    sequences: Sequences,
    users: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # given the user of whom the list finds most
    items, _, interest = mind_core.inference.recommend(
        model.retriever, sequences, torch.arange(len(sequences)), 20, exclude_seen=False
    )
    targets = table["targets"].to_pylist()
    hits = [len(set(row.tolist()) & set(wanted)) for row, wanted in zip(items, targets, strict=True)]
    lucky = int(np.argmax(hits))
    assert hits[lucky] > 0
    # when it is printed
    recommend(config, [str(users[lucky])], model=str(model.path))
    printed = capsys.readouterr().out
    # then each of its interests has a heading, and each hit a mark
    for number in range(3):
        assert (f"Interest {number + 1} — " in printed) == (number in interest[lucky].tolist())
    assert f"✓ held out from the model: {hits[lucky]} of {len(targets[lucky])} are in the list" in printed
    assert printed.count("✓") == hits[lucky] + 1
    assert str(model.item_ids[int(items[lucky, 0]) - 2]) in printed


def test_names_may_hold_what_rich_takes_for_markup(
    config: Config, model: SavedModel, users: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    titles = pa.array(["[/b] of [1993]"] * model.items.num_rows)
    shown = SavedModel(model.path, model.card, model.retriever, model.items.append_column("show_title", titles))
    rows = Dataset.open(config.dataset_path).table("test").slice(0, 1)
    sequences = to_sequences(rows, feature_specs(model.card.profile_features))
    show_lists(shown, sequences, shown.recommend(sequences, 5, exclude_seen=False), ["[u]"], [[]])
    printed = capsys.readouterr().out
    assert "User [u]: " in printed
    assert printed.count("[/b] of [1993]") > 5


BLOCKS = [
    pa.table({"user": ["ä", "b"], "genres": [["x", "y"], []], "score": pa.array([0.5, 1.5], pa.float32())}),
    pa.table({"user": ["c"], "genres": [["z"]], "score": pa.array([2.5], pa.float32())}),
]


def test_lists_are_written_in_order_in_each_format(tmp_path: Path) -> None:
    assert write_lists(BLOCKS, tmp_path / "a.parquet") == 3
    assert pq.read_table(tmp_path / "a.parquet").equals(pa.concat_tables(BLOCKS))
    write_lists(BLOCKS, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == '"user","genres","score"\n"ä","x|y",0.5\n"b","",1.5\n"c","z",2.5\n'
    write_lists(BLOCKS, tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_text().splitlines()[0] == '{"user":"ä","genres":["x","y"],"score":0.5}'
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_block_without_rows_leaves_no_trace(tmp_path: Path, suffix: str) -> None:
    empty = BLOCKS[0].slice(0, 0)
    with_empty, without = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    assert write_lists([empty, BLOCKS[0], empty, BLOCKS[1], empty], with_empty) == write_lists(BLOCKS, without) == 3
    assert with_empty.read_bytes() == without.read_bytes()


def test_a_file_without_any_list_is_still_one_of_its_format(tmp_path: Path) -> None:
    for suffix in ("parquet", "csv", "jsonl"):
        assert write_lists([BLOCKS[0].slice(0, 0)], tmp_path / f"a.{suffix}") == 0
    assert pq.read_table(tmp_path / "a.parquet").schema == BLOCKS[0].schema
    assert (tmp_path / "a.csv").read_text() == '"user","genres","score"\n'
    assert (tmp_path / "a.jsonl").read_text() == ""
    with pytest.raises(UserError, match=r"none.parquet: nobody to write a list for"):
        write_lists([], tmp_path / "none.parquet")
    assert not (tmp_path / "none.parquet").exists()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_lists_that_fail_halfway_leave_the_older_file(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"lists.{suffix}"
    out.write_text("older")

    def failing() -> Iterator[pa.Table]:
        yield BLOCKS[0]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_lists(failing(), out)
    assert out.read_text() == "older"
    assert list(tmp_path.iterdir()) == [out]


def test_actors_do_not_ask_for_the_cpus_that_the_jobs_driver_holds(
    config: Config, model: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one of them waits for ever for its place, and the command with it."""
    monkeypatch.setattr("pipelines.models.over_users.SLICE_USERS", 50)
    assert actors_of(config, slices=10)["concurrency"] == (2, 2)
    monkeypatch.setenv("MIND_DRIVER_CPUS", "1.5")  # of those that the test's cluster has
    assert actors_of(config, slices=10)["concurrency"] == (1, 1)
    assert recommend(config, out=tmp_path / "all.parquet", model=str(model.path)) == tmp_path / "all.parquet"


def test_a_user_who_is_not_there_is_told_before_a_model_is_looked_for(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        sys.modules, "pipelines.retrieval.user_lists", None
    )  # its import, which takes long, is an error
    with pytest.raises(UserError, match=r"--user nobody: .* has no such user"):
        recommend(config, users=["nobody"])

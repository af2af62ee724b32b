"""The stage as a whole, on one local Ray cluster."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import pipelines.preprocess.preprocess
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.vocabulary import encode_columns
from pipelines.errors import UserError
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.summary import print_summary
from pipelines.preprocess.workspace import Workspace, claimed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(120)]
Configured = Callable[..., Config]

ROWS = [  # user, item, time; b is the more frequent item, z is rare
    ("ann", "a", 1), ("ann", "b", 2), ("ann", "c", 3), ("ann", "b", 4), ("ann", "b", 4),
    ("bob", "b", 9), ("bob", "a", 5), ("bob", "z", 7),
    ("cyd", "c", 1), ("cyd", "b", 2),
    (None, "a", 1), ("dan", None, 1), ("dan", "a", None),
]  # fmt: skip


def log(path: Path, rows: list[tuple[Any, Any, Any]] = ROWS) -> Path:
    user, item, time = zip(*rows, strict=True)
    pq.write_table(pa.table({"user": user, "item": item, "time": time}), path)
    return path


def visible(folder: Path) -> list[str]:
    """Without unfinished work."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def shuffled_log(rows: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    names = np.array([f"user {n}" for n in range(200)])
    return pa.table(
        {
            "user": names[rng.integers(0, 200, rows)],
            "item": np.floor(200 * rng.random(rows) ** 3).astype(np.int64),
            "time": rng.integers(0, 500, rows),  # many ties
        }
    )


def test_a_folder_that_is_no_dataset_of_that_name_is_left_as_it_is(tmp_path: Path, configured: Configured) -> None:
    config = configured(log(tmp_path / "log.parquet"))
    for name, content in (("thesis.txt", "precious"), ("manifest.json", '{"name": "another"}')):
        (config.dataset_path / name).parent.mkdir(parents=True, exist_ok=True)
        (config.dataset_path / name).write_text(content)
        with pytest.raises(UserError, match=r"tiny: holds .* no manifest.json that says it is tiny"):
            preprocess(config)
        assert (config.dataset_path / name).read_text() == content
    assert visible(config.dataset_path.parent) == ["tiny"]


def test_a_small_log_becomes_the_dataset_one_would_write_by_hand(tmp_path: Path, configured: Configured) -> None:
    items = tmp_path / "items.parquet"
    tags = [["x", "y"], ["x"], None]
    pq.write_table(pa.table({"id": ["a", "b", "unseen"], "tags": tags, "title": ["Aa", "Bb", "Uu"]}), items)
    people = tmp_path / "people.csv"
    people.write_text("id,town,age\nann,Bern,30\nbob,,50\nzoe,Ulm,99\n")
    config = configured(
        log(tmp_path / "log.parquet"),
        min_item_events=2,
        items={"path": str(items), "id": "id", "features": {"tags": {"kind": "multi"}}, "show": ["title"]},
        profile={"path": str(people), "id": "id", "features": {"town": {}, "age": {"kind": "numeric"}}},
    )
    dataset = preprocess(config)

    manifest = dataset.manifest
    assert manifest.set_aside == {
        "duplicate": 1, "item below min_item_events": 1, "missing item": 1, "missing time": 1, "missing user": 1,
    }  # fmt: skip
    assert (manifest.rows_read, manifest.events, manifest.users, manifest.items) == (13, 8, 3, 3)
    assert dataset.items().to_pylist() == [
        {"item": 2, "id": "b", "count": 4, "train_count": 3, "feature_tags": [3], "show_title": "Bb"},
        {"item": 3, "id": "a", "count": 2, "train_count": 2, "feature_tags": [3, 4], "show_title": "Aa"},
        {"item": 4, "id": "c", "count": 2, "train_count": 1, "feature_tags": [2], "show_title": None},
    ]
    assert dataset.vocabulary("users").to_pylist() == [
        {"index": 0, "id": "ann", "count": 4},
        {"index": 1, "id": "bob", "count": 2},
        {"index": 2, "id": "cyd", "count": 2},
    ]
    assert dataset.vocabulary("item_features/tags").to_pydict() == {
        "index": [3, 4],
        "value": ["x", "y"],
        "count": [2, 1],
    }
    assert dataset.vocabulary("profile_features/town")["value"].to_pylist() == ["Bern"]
    assert dataset.table("test").to_pylist() == [
        {"user": 0, "items": [3, 2, 4], "times": [1, 2, 3], "targets": [2], "profile_town": 3, "profile_age": -1.0}
    ]
    train = dataset.table("train")
    assert train["items"].to_pylist() == [[3, 2], [3, 2], [4, 2]]
    assert train["targets"].to_pylist() == [[], [], []]
    assert train["profile_town"].to_pylist() == [3, 2, 2]
    assert train["profile_age"].to_pylist() == [-1.0, 1.0, None]
    assert (manifest.profile_features[1].mean, manifest.profile_features[1].std) == (40.0, 10.0)
    raw = pa.table({"town": ["Bern", "Rome"], "age": ["40", None]})
    encoded = {
        name: column.to_pylist() for name, column in encode_columns(dataset.encoders("profile"), raw, "p").items()
    }
    assert encoded == {"p_town": [3, 1], "p_age": [0.0, None]}
    assert sorted(os.listdir(dataset.path.parent)) == ["tiny"]
    assert sorted(os.listdir(dataset.path)) == [
        "events",
        "items",
        "manifest.json",
        "quality.html",
        "quality.json",
        "quarantine",
        "ray-data.txt",
        "sequences",
        "vocabularies",
    ]
    assert dataset.config == config.data

    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
    print_summary(dataset, console)
    printed = console.export_text()
    for text in ("set aside: missing user", "kept as events", "written to"):
        assert text in printed


def test_a_manifest_holds_no_credentials_and_is_the_same_under_others(tmp_path: Path, configured: Configured) -> None:
    uri = f"file://{log(tmp_path / 'log.parquet')}?secret_key="
    made = [preprocess(configured(uri + secret)).manifest for secret in ("s3cret", "another")]
    assert "s3cret" not in made[0].to_json()
    assert made[0] == made[1]
    assert Dataset(tmp_path, made[0]).config == configured(uri + "***").data


def test_content_does_not_depend_on_files_blocks_or_row_order(
    tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.preprocess.preprocess, "EVENTS_PER_PART", 500)  # several parts
    table = shuffled_log(3000)
    one, seven = tmp_path / "one.parquet", tmp_path / "seven"
    pq.write_table(table, one)
    seven.mkdir()
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(3000)))
    for number in range(7):
        pq.write_table(shuffled.slice(number * 430, 430), seven / f"{number}.parquet", row_group_size=100)
    shape = {"min_item_events": 5, "min_user_events": 3}
    first = preprocess(configured(one, **shape))
    files = {path.relative_to(first.path): path.read_bytes() for path in first.path.rglob("*.parquet")}
    second = preprocess(configured(seven, **shape))
    assert first.manifest.fingerprint == second.manifest.fingerprint
    assert len(first.split_files("train")) == 6
    assert files == {path.relative_to(second.path): path.read_bytes() for path in second.path.rglob("*.parquet")}
    users = second.table("train")["user"].to_numpy()
    assert (np.diff(users) > 0).all(), "users ascend within and across parts"

    csv.write_csv(table, tmp_path / "log.csv")
    third = preprocess(configured(tmp_path / "log.csv", **shape))
    assert third.manifest.fingerprint == first.manifest.fingerprint, "text of integers means integers"


def test_the_minimum_counts_hold_together(tmp_path: Path, configured: Configured) -> None:
    table = shuffled_log(2500)
    pq.write_table(table, tmp_path / "log.parquet")
    manifest = preprocess(configured(tmp_path / "log.parquet", min_item_events=8, min_user_events=6)).manifest
    dataset = Dataset.open(tmp_path / "home" / "datasets" / "tiny")
    rows = sorted({(u, t, i) for u, i, t in zip(*table.to_pydict().values(), strict=True)})
    while True:  # the k-core by hand
        items, users = {}, {}
        for user, _, item in rows:
            items[item] = items.get(item, 0) + 1
            users[user] = users.get(user, 0) + 1
        left = [row for row in rows if items[row[2]] >= 8 and users[row[0]] >= 6]
        if left == rows:
            break
        rows = left
    assert rows, "the case is not empty"
    assert (manifest.events, manifest.users, manifest.items) == (len(rows), len(users), len(items))
    vocabulary = dataset.vocabulary("items")
    assert dict(zip(vocabulary["id"].to_pylist(), vocabulary["count"].to_pylist(), strict=True)) == items
    assert manifest.rows_read == manifest.events + sum(manifest.set_aside.values())


def test_temporal_and_holdout_splits_reach_the_dataset(tmp_path: Path, configured: Configured) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "user,item,time\n1,a,2024-01-01\n1,b,2024-01-02\n1,c,2024-01-03\n1,c,2024-01-03T01:00\n2,a,2024-01-03\n"
    )
    split = {"protocol": "temporal", "validation_from": "2024-01-02", "test_from": "2024-01-03"}
    dataset = preprocess(configured(path, split=split))
    ids = dict(zip(dataset.items()["item"].to_pylist(), dataset.items()["id"].to_pylist(), strict=True))
    (row,) = dataset.table("test").to_pylist()
    assert ([ids[item] for item in row["items"]], [ids[item] for item in row["targets"]]) == (["a", "b"], ["c"])
    assert dataset.manifest.time_unit == "us"
    assert dataset.manifest.splits["test"].skipped_users == 1
    held = preprocess(configured(path, split={"protocol": "user_holdout", "held_out": 0.4})).manifest.splits
    assert sum(counts.users + counts.skipped_users for counts in held.values()) == 2
    with pytest.raises(UserError, match="validation_from='soon'"):
        preprocess(configured(path, split={**split, "validation_from": "soon"}))


def test_a_dirty_log_goes_through_and_every_row_is_accounted_for(tmp_path: Path, configured: Configured) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "user,item,time,kind\n1,ä,10,buy\n1,b,11,buy\n1,b,11,buy\n,b,12,buy\n2,,13,buy\n2,b,,buy\n2,b,noon,buy\n"
        "3,c,14\n4,c,15,view\n99999999999999999999,b,-5,buy\nx,b,16,buy\n5,c,17,\n"
    )
    manifest = preprocess(configured(path, events={"event_type": "kind", "keep_types": ["buy"]})).manifest
    assert manifest.set_aside == {
        "duplicate": 1, "missing item": 1, "missing time": 1, "missing user": 1, "other event type": 2,
        "time cannot be parsed": 1, "unreadable row": 1,
    }  # fmt: skip
    assert (manifest.rows_read, manifest.events, manifest.users) == (12, 4, 3)
    every = preprocess(configured(path, events={"event_type": "kind"})).manifest
    assert every.events == manifest.events + 2, "an event without a type is one of another type"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"events": {"item": "sku"}}, "no column 'sku'; the file has user, item, time"),
        ({"min_item_events": 99}, "lower them"),
        ({"max_bad_fraction": 0.1}, "3 of 13 rows cannot be used (1 missing user, 1 missing item, 1 missing time)"),
        ({"items": {"path": "ITEMS", "id": "id"}}, "holds int64 such as 1, but column 'item' of"),
        ({"items": {"path": "TWICE", "id": "id"}}, "keep one row per id"),
        ({"items": {"path": "OTHERS", "id": "id"}}, "is an item of the log"),
        ({"profile": {"path": "OTHERS", "id": "id"}}, "is a user of"),
        ({"items": {"path": "NUMBERS", "id": "id", "features": {"n": {"kind": "multi"}}}}, "feature 'n': kind multi"),
    ],
)
def test_mistakes_are_one_line_and_the_old_dataset_stays(
    change: dict[str, Any], message: str, tmp_path: Path, configured: Configured
) -> None:
    path = log(tmp_path / "log.parquet")
    tables = {"ITEMS": [1, 2], "TWICE": ["a", "a"], "OTHERS": ["p", "q"], "NUMBERS": ["a", "b"]}
    for name, ids in tables.items():
        pq.write_table(pa.table({"id": ids, "n": [1, 2]}), tmp_path / f"{name}.parquet")
    for side in ("items", "profile"):
        if side in change:
            change = {side: {**change[side], "path": str(tmp_path / f"{change[side]['path']}.parquet")}}
    folder = configured(path).dataset_path
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"name": "tiny"}')
    with pytest.raises(UserError) as error:
        preprocess(configured(path, **change))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert visible(folder.parent) == ["tiny"]
    assert (folder / "manifest.json").read_text() == '{"name": "tiny"}'


def test_an_error_inside_a_worker_is_the_same_one_line(tmp_path: Path, configured: Configured) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "1.csv").write_text("user,item,time\n1,a,1\n")
    (folder / "2.csv").write_text("user,thing,time\n1,a,1\n")
    with pytest.raises(UserError, match=r"2\.csv: no column 'item'; the file has user, thing, time$"):
        preprocess(configured(folder))
    assert not visible(tmp_path / "home" / "datasets")


def test_an_empty_log_is_refused(tmp_path: Path, configured: Configured) -> None:
    for name, rows in (("none.parquet", []), ("bad.parquet", [(None, "a", 1)])):
        table = pa.table({"user": [r[0] for r in rows], "item": [r[1] for r in rows], "time": [r[2] for r in rows]})
        pq.write_table(table, tmp_path / name)
        with pytest.raises(UserError, match=r"no row|empty"):
            preprocess(configured(tmp_path / name))


def test_a_failed_command_is_gone_on_with_where_it_was(
    tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.preprocess.preprocess, "EVENTS_PER_PART", 500)
    pq.write_table(shuffled_log(3000), tmp_path / "log.parquet")
    config = configured(tmp_path / "log.parquet", min_item_events=5)
    expected = preprocess(config.model_copy(update={"name": "whole"})).manifest

    def fail(*arguments: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(pipelines.preprocess.preprocess, "write_parts", fail)
        with pytest.raises(RuntimeError):
            preprocess(config)
    assert not config.dataset_path.exists()
    (work,) = config.dataset_path.parent.glob(".tiny.work-*")
    sorted_at = {file.name: file.stat().st_mtime_ns for file in (work / "dataset" / "events").glob("part-*")}
    torn = work / "dataset" / "vocabularies" / "users" / "part-00001.writing-77"
    torn.write_bytes(b"PAR1")  # of a worker killed while it wrote
    manifest = preprocess(config).manifest
    assert manifest.fingerprint == expected.fingerprint
    assert len(Dataset.open(config.dataset_path).vocabulary("users")) == manifest.users
    assert manifest.set_aside == expected.set_aside
    events = config.dataset_path / "events"
    assert {file.name: file.stat().st_mtime_ns for file in events.glob("part-*")} == sorted_at, "not sorted anew"
    assert not work.exists()

    # and work for other settings, or over another log, is not gone on with
    with monkeypatch.context() as patch:
        patch.setattr(pipelines.preprocess.preprocess, "write_parts", fail)
        with pytest.raises(RuntimeError):
            preprocess(config)
    assert preprocess(configured(tmp_path / "log.parquet")).manifest.events > manifest.events


def test_epoch_times_and_partition_folders_reach_the_dataset(tmp_path: Path, configured: Configured) -> None:
    for day, rows in (
        ("2024-01-01", "1,a,1704067200\n1,b,1704067200.5\n"),
        ("2024-01-02", "1,c,2024-01-02T00:00Z\n2,a,x\n"),
    ):
        folder = tmp_path / "log" / f"day={day}"
        folder.mkdir(parents=True)
        (folder / "part.csv").write_text(f"user,item,time\n{rows}")
    split = {"protocol": "temporal", "validation_from": "2024-01-02", "test_from": "2024-01-03"}
    late = {"column": "day", "values": ["2024-01-02"], "reason": "of the second day"}
    dataset = preprocess(configured(tmp_path / "log", events={"time_unit": "s"}, split=split))
    assert dataset.manifest.time_unit == "us"
    assert dataset.table("train")["times"].to_pylist() == [[1704067200_000000, 1704067200_500000]]
    assert dataset.manifest.splits["validation"].targets == 1
    assert dataset.manifest.set_aside == {"time cannot be parsed": 1}
    first = preprocess(configured(tmp_path / "log", events={"time_unit": "s", "exclude": [late]}, split=split))
    assert first.manifest.set_aside == {"of the second day": 1, "time cannot be parsed": 1}


def test_two_jobs_do_not_write_one_dataset(tmp_path: Path, configured: Configured) -> None:
    config = configured(log(tmp_path / "log.parquet"))
    with claimed(config.dataset_path), pytest.raises(UserError, match="another mind preprocess"):
        preprocess(config)
    assert preprocess(config).manifest.events == 9


def test_a_limit_can_be_raised_without_reading_the_log_again(
    tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = log(tmp_path / "log.parquet")
    with pytest.raises(UserError, match="quarantine") as error:
        preprocess(configured(path, max_bad_fraction=0.1))
    folder = re.findall(r"in (\S+quarantine)", str(error.value))[0]
    assert len(pq.read_table(folder)) == 3
    (work,) = (tmp_path / "home" / "datasets").glob(".tiny.work-*")
    read = (work / "read" / "00000-00000.json").stat().st_mtime_ns
    monkeypatch.setattr(Workspace, "publish", lambda self: None)  # to look at it once more
    with pytest.raises(UserError, match="no dataset"):
        preprocess(configured(path, max_bad_fraction=0.5))
    assert (work / "read" / "00000-00000.json").stat().st_mtime_ns == read


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_kill_while_the_dataset_is_replaced_loses_nothing(
    step: int, tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the old one is moved away, before the new one takes its place, and before each removal."""
    config = configured(log(tmp_path / "log.parquet"))
    old = preprocess(config).manifest
    more = configured(log(tmp_path / "more.parquet", [*ROWS, ("eve", "a", 5), ("eve", "b", 6)]))
    expected = preprocess(more.model_copy(update={"name": "expected"}))
    steps = 0

    def killed(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > step:
                raise KeyboardInterrupt
            return real(*arguments, **more)

        return call

    with monkeypatch.context() as patch:

        def publish(self: Workspace) -> None:
            patch.setattr(Path, "rename", killed(Path.rename))
            patch.setattr(shutil, "rmtree", killed(shutil.rmtree))
            real_publish(self)

        real_publish = Workspace.publish
        patch.setattr(Workspace, "publish", publish)
        with pytest.raises(KeyboardInterrupt):
            preprocess(more)
    if step == 0:
        assert Dataset.open(config.dataset_path).manifest == old
    again = preprocess(more)
    assert again.manifest.fingerprint == expected.manifest.fingerprint
    assert again.table("train").equals(expected.table("train"))
    assert again.vocabulary("users").equals(expected.vocabulary("users"))
    assert sorted(os.listdir(config.dataset_path.parent)) == ["expected", "tiny"]


def test_rows_that_are_no_good_can_be_looked_at(tmp_path: Path, configured: Configured) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n1,a,10\n,b,12\n2,b,noon\n3,c\n4,d,13\n")
    dataset = preprocess(configured(path))
    rows = pq.read_table(dataset.layout.quarantine).to_pylist()
    assert [(row["reason"], row["user"], row["item"], row["time"], row["line"]) for row in rows] == [
        ("missing user", None, "b", "12", None),
        ("time cannot be parsed", "2", "b", "noon", None),
        ("unreadable row", None, None, None, "3,c"),
    ]
    assert {row["file"] for row in rows} == {str(path)}
    pq.write_table(pa.table({"user": [1], "item": [2], "time": [3]}), tmp_path / "good.parquet")
    assert not list(preprocess(configured(tmp_path / "good.parquet")).layout.quarantine.iterdir())


def test_sequences_may_say_more_of_each_behaviour(tmp_path: Path, configured: Configured) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,kind\n1,a,0,view\n1,b,30,buy\n1,c,31,\n1,d,95,cart\n2,a,5,buy\n")
    events = {"event_type": "kind", "type_weights": {"buy": 4.0, "cart": 2.0}}
    holdout = {"protocol": "temporal", "validation_from": 1000, "test_from": 1001}
    dataset = preprocess(configured(path, events=events, session_gap=60, time_gaps=True, split=holdout))
    rows = {len(row["items"]): row for row in dataset.table("train").to_pylist()}
    assert rows[4]["weights"] == [1.0, 4.0, 1.0, 2.0]
    assert rows[4]["sessions"] == [0, 0, 0, 1]
    assert rows[4]["gaps"] == [0, 5, 2, 7]
    assert (rows[1]["weights"], rows[1]["sessions"], rows[1]["gaps"]) == ([4.0], [0], [0])
    newest = preprocess(configured(path, events={"event_type": "kind"}, max_user_events=2, split=holdout))
    ids = dict(zip(newest.items()["item"].to_pylist(), newest.items()["id"].to_pylist(), strict=True))
    assert sorted([ids[item] for item in row["items"]] for row in newest.table("train").to_pylist()) == [
        ["a"],
        ["c", "d"],
    ]
    assert newest.manifest.set_aside == {"older than the newest max_user_events": 2}

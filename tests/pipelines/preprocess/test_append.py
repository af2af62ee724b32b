"""`--append`: the same dataset as one made of all the logs, but for the numbering of items and users."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.preprocess.preprocess
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SPLITS
from pipelines.errors import UserError
from pipelines.preprocess.append import append
from pipelines.preprocess.preprocess import preprocess
from pipelines.quality.report import Quality

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(120)]
Configured = Callable[..., Config]

DAYS = 4
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all events kept": {"events": {"duplicates": "keep"}},
    "k-core": {"min_item_events": 6, "min_user_events": 4},
    "collapsed and cut": {"events": {"repeats": "collapse"}, "max_user_events": 9, "min_item_events": 3},
    "columns": {
        "events": {"event_type": "kind", "type_weights": {"buy": 5.0}, "tie_break": "number"},
        "session_gap": 20,
        "time_gaps": True,
    },
    "temporal": {"split": {"protocol": "temporal", "validation_from": 300, "test_from": 390}},
    "user holdout": {"split": {"protocol": "user_holdout", "held_out": 0.2}, "min_user_events": 3},
    "cold items": {"items": {"path": "ITEMS", "id": "id", "features": {"group": {}}, "cold_start": True}},
    "profiles": {"profile": {"path": "USERS", "id": "id", "features": {"group": {}}}},
}


def days(folder: Path, seed: int = 0) -> list[Path]:
    """Logs that overlap in time and repeat rows of each other; new users and items come with every one."""
    rng = np.random.default_rng(seed)
    files, last = [], None
    for day in range(DAYS):
        count = 900 if day == 0 else 150
        table = pa.table(
            {
                "user": [f"u{n}" for n in np.floor((60 + 15 * day) * rng.random(count) ** 1.5).astype(int)],
                "item": np.floor((80 + 20 * day) * rng.random(count) ** 2).astype(np.int64),
                "time": rng.integers(max(0, 80 * day - 30), 80 * day + 150, count),
                "kind": np.array(["view", "buy", "cart"])[rng.integers(0, 3, count)],
                "number": rng.integers(0, 5, count),
            }
        )
        if last is not None:
            table = pa.concat_tables([table, last.slice(0, 20)])
        last = table
        files.append(folder / f"day-{day}.parquet")
        pq.write_table(table, files[-1])
    return files


def decoded(dataset: Dataset) -> dict[str, Any]:
    """The content by the log's own ids: what two datasets of the same events have in common."""
    users = dataset.vocabulary("users")
    assert users["index"].to_pylist() == list(range(len(users)))
    user, items = users["id"].to_pylist(), dataset.items()
    item = dict(zip(items["item"].to_pylist(), items["id"].to_pylist(), strict=True))
    found: dict[str, Any] = {
        "users": {id_: count for id_, count in zip(user, users["count"].to_pylist(), strict=True) if count},
        "items": {row["id"]: (row["count"], row["train_count"]) for row in items.to_pylist()},
    }
    if "feature_group" in items.column_names:
        values = {row["index"]: row["value"] for row in dataset.vocabulary("item_features/group").to_pylist()}
        found["groups"] = {row["id"]: values[row["feature_group"]] for row in items.to_pylist()}
    if dataset.manifest.profile_features:
        profile = {row["index"]: row["value"] for row in dataset.vocabulary("profile_features/group").to_pylist()}
    for split in SPLITS:
        rows = dataset.table(split).to_pylist()
        for row in rows:
            for name in ("items", "targets"):
                row[name] = [item[place] for place in row[name]]
            if "profile_group" in row:
                row["profile_group"] = profile[row["profile_group"]]
        found[split] = {user[row.pop("user")]: row for row in rows}
        assert len(found[split]) == len(rows), "no user has two rows"
    manifest = dataset.manifest
    counts = (manifest.rows_read, manifest.events, manifest.users, manifest.set_aside, manifest.splits)
    return found | {"counts": counts, "total": manifest.events + sum(manifest.set_aside.values())}


def settled_items(found: dict[str, Any]) -> dict[str, Any]:
    """Without items that have no event left: an append keeps their rows, a new dataset has none."""
    return found | {"items": {id_: counts for id_, counts in found["items"].items() if counts != (0, 0)}}


def write_groups(path: Path, ids: list[Any]) -> None:
    pq.write_table(pa.table({"id": ids, "group": [f"g{n % 7}" for n in range(len(ids))]}), path)


@pytest.mark.parametrize("name", SETTINGS)
def test_appended_days_equal_one_dataset_of_all_days(
    name: str, tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.preprocess.preprocess, "EVENTS_PER_PART", 200)  # several parts
    files = days(tmp_path)
    settings = dict(SETTINGS[name])
    for side, ids in (("items", range(200)), ("profile", [f"u{n}" for n in range(120)])):
        if side in settings:
            settings[side] = {**settings[side], "path": str(tmp_path / f"{side}.parquet")}
            write_groups(tmp_path / f"{side}.parquet", list(ids)[:-80])
    config = configured(files[0], **settings)
    first = preprocess(config)
    for side, ids in (("items", range(200)), ("profile", [f"u{n}" for n in range(120)])):
        if side in settings:  # the catalogue grows, too
            write_groups(tmp_path / f"{side}.parquet", list(ids))
    rows = dict(zip(first.items()["id"].to_pylist(), first.items()["item"].to_pylist(), strict=True))
    for file in files[1:]:
        append(config, str(file))
    appended = Dataset.open(config.dataset_path)
    grown = dict(zip(appended.items()["id"].to_pylist(), appended.items()["item"].to_pylist(), strict=True))
    assert {id_: grown[id_] for id_ in rows} == rows, "an item keeps its row"
    assert appended.manifest.appended == DAYS - 1

    whole = preprocess(configured(tmp_path / "day-*.parquet", **settings).model_copy(update={"name": "whole"}))
    left, right = decoded(appended), decoded(whole)
    if name != "cold items":
        left, right = settled_items(left), settled_items(right)
    for key in right:
        assert left[key] == right[key], key
    assert left["total"] == left["counts"][0], "every row is accounted for"
    reports = [Quality.read(dataset.layout) for dataset in (appended, whole)]
    assert reports[0] is not None
    assert reports[1] is not None
    assert reports[0].drift, "against the dataset before"
    same = ("rows_read", "set_aside", "events", "users", "splits", "lengths", "gaps")
    assert [getattr(reports[0], key) for key in same] == [getattr(reports[1], key) for key in same]
    assert reports[0].time["bins"] == reports[1].time["bins"]
    # an append does not know the earliest test target any more when that of a user has moved on
    checks = [[each for each in report.leakage if "arliest test" not in each.name] for report in reports if report]
    assert checks[0] == checks[1]
    assert len(checks[0]) == len(reports[0].leakage) - 1


def test_an_append_leaves_the_files_of_untouched_users_alone(tmp_path: Path, configured: Configured) -> None:
    files = days(tmp_path)
    config = configured(files[0])
    first = preprocess(config)
    train = Path(first.split_files("train")[0])
    inode = train.stat().st_ino
    pq.write_table(
        pa.table({"user": ["new"], "item": [3], "time": [999], "kind": ["x"], "number": [0]}), tmp_path / "one"
    )
    (tmp_path / "one").rename(tmp_path / "one.parquet")
    second = append(config, str(tmp_path / "one.parquet"))
    assert train.stat().st_ino == inode, "linked, not copied"
    assert second.manifest.users == first.manifest.users + 1
    assert second.vocabulary("users")["id"][-1].as_py() == "new"
    assert second.manifest.fingerprint != first.manifest.fingerprint


def test_mistakes_of_an_append_are_one_line_and_change_nothing(tmp_path: Path, configured: Configured) -> None:
    files = days(tmp_path)
    config = configured(files[0])
    with pytest.raises(UserError, match="no dataset"):
        append(config, str(files[1]))
    before = preprocess(config).manifest
    text = tmp_path / "text.csv"
    text.write_text("user,item,time\nu1,abc,5\n")
    dates = tmp_path / "dates.csv"
    dates.write_text("user,item,time\nu1,1,2024-01-01\n")
    for path, message in ((files[0], "is part of the dataset"), (text, "holds string"), (dates, "of another kind"),
                          (tmp_path / "none.parquet", "no such file")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            append(config, str(path))
    with pytest.raises(UserError, match=r"data\.min_item_events"):
        append(configured(files[0], min_item_events=2), str(files[1]))
    assert Dataset.open(config.dataset_path).manifest == before
    assert [path.name for path in config.dataset_path.parent.iterdir() if not path.name.startswith(".")] == ["tiny"]
    with files[0].open("ab") as file:
        file.write(b"grown")
    with pytest.raises(UserError, match=r"changed since|cannot be read"):
        append(config, str(files[0]))


def test_session_lines_of_two_logs_are_different_users(tmp_path: Path, configured: Configured) -> None:
    for name, text in (("first", "a b c\nb c\n"), ("second", "a c\nc b a\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    config = configured(tmp_path / "first.txt", events={"format": "sessions"})
    preprocess(config)
    dataset = append(config, str(tmp_path / "second.txt"))
    assert dataset.manifest.users == 4
    assert sorted(dataset.vocabulary("users")["count"].to_pylist()) == [2, 2, 3, 3]


def test_names_sort_wrongly_and_nothing_depends_on_it(
    tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given parts whose file numbers outgrow their five digits
    monkeypatch.setattr(pipelines.preprocess.preprocess, "EVENTS_PER_PART", 100)
    files = days(tmp_path)
    config = configured(files[0])
    dataset = preprocess(config)
    manifest = dataset.layout.manifest
    manifest.write_text(manifest.read_text().replace('"appended": 0', '"appended": 19998'))
    appended = append(config, str(files[1]))
    assert any(len(Path(file).name) > len("part-00000.parquet") for file in appended.split_files("train"))
    assert appended.vocabulary("users")["index"].to_pylist() == list(range(len(appended.vocabulary("users"))))

"""The split, the preset and the settings that `mind init` makes of how users behave. No Ray."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.log import formats
from pipelines.log.proposal import all_over, first_look
from pipelines.log.proposal.first_look import look_at
from pipelines.log.proposal.write import propose

DAY = 86_400
START = 1_600_000_000


def written(folder: Path, rows: list[tuple[Any, Any, int]], user: str = "user", **files: Any) -> Any:
    """The configuration of a log of (user, item, seconds), and its text."""
    table = pa.table({name: [row[n] for row in rows] for n, name in enumerate((user, "item", "time"))})
    pq.write_table(table, folder / "log.parquet", **files)
    text = propose("mine", look_at(str(folder / "log.parquet")))
    return yaml.safe_load(text), text


def visits(users: int, events: int, days: float, items: int, one_day: bool = False) -> list[tuple[int, int, int]]:
    """Users with as many events each, all over the days, or each on a day of its own."""
    shares = [(u, n, u / users if one_day else (n + u / users) / events) for n in range(events) for u in range(users)]
    return [(u, (u * 13 + n * 7) % items, START + n + int(share * days * DAY)) for u, n, share in shares]


def test_users_who_come_back_are_split_by_time(tmp_path: Path) -> None:
    config, text = written(tmp_path, visits(60, 30, 100, 1000))
    split = config["data"]["split"]
    assert split["protocol"] == "temporal"
    assert str(split["validation_from"]) < str(split["test_from"])
    assert "the last tenth of 100 days' events: validation, then test, of 60 users" in text


def test_users_who_come_once_are_not_split_by_time(tmp_path: Path) -> None:
    config, text = written(tmp_path, visits(60, 30, 100, 1000, one_day=True))
    assert config["data"]["split"] == {"protocol": "leave_one_out"}
    assert "of the users came on one day only" in text


def test_sessions_are_tested_on_sessions_that_training_has_not_seen(tmp_path: Path) -> None:
    config, _ = written(tmp_path, visits(60, 30, 100, 1000, one_day=True), user="session_id")
    assert config["data"]["split"]["protocol"] == "user_holdout"
    (tmp_path / "sessions.txt").write_text("".join(f"{n} {n % 7} {n % 5}{' 9' * (n % 3)}\n" for n in range(50)))
    config = yaml.safe_load(propose("mine", look_at(str(tmp_path / "sessions.txt"))))
    assert config["data"]["split"]["protocol"] == "user_holdout"


def test_users_of_two_events_are_held_out(tmp_path: Path) -> None:
    config, _ = written(tmp_path, visits(60, 2, 100, 1000))
    assert config["data"]["split"] == {"protocol": "user_holdout"}


def long_log(folder: Path, form: str, files: int, rows: list[tuple[Any, Any, int]]) -> Path:
    """The rows, in their order, in as many files."""
    log = folder / "log"
    log.mkdir()
    for part in range(files):
        own = rows[part * len(rows) // files : (part + 1) * len(rows) // files]
        table = pa.table({name: [row[n] for row in own] for n, name in enumerate(("user", "item", "time"))})
        lines = [f"{user},{item},{time}" for user, item, time in own]
        if form == "parquet":
            pq.write_table(table, log / f"{part}.parquet", row_group_size=1000)
        elif form == "jsonl":
            (log / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        elif form == "headless":
            (log / f"{part}.csv").write_text("\n".join(lines))
        else:
            data = "\n".join(["user,item,time", *lines, ""]).encode()
            (log / f"{part}.csv").write_bytes(gzip.compress(data) if form == "gzip" else data)
    return log


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "gzip", "headless"])
@pytest.mark.parametrize("order", ["time", "user"])
@pytest.mark.parametrize("files", [1, 3])
def test_a_log_longer_than_a_look_is_cut_where_its_last_days_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, order: str, files: int
) -> None:
    monkeypatch.setattr(first_look, "BLOCKS", 1)
    monkeypatch.setattr(formats, "BLOCK_ROWS", 2000)
    monkeypatch.setattr(formats, "BLOCK_BYTES", 2**15)
    monkeypatch.setattr(all_over, "ROWS", 50)
    monkeypatch.setattr(all_over, "BYTES", 2**10)
    monkeypatch.setattr(all_over, "STRIDE", 2**11)
    rows = sorted(visits(200, 50, 100, 1000), key=lambda row: row[2 if order == "time" else 0])
    names = {"user": "column_1", "item": "column_2", "time": "column_3"} if form == "headless" else None
    text = propose("mine", look_at(str(long_log(tmp_path, form, files, rows))), columns=names)
    assert "the first " in text.splitlines()[0]
    split = yaml.safe_load(text)["data"]["split"]
    assert split["protocol"] == "temporal"
    first = np.datetime64(START, "s").astype("datetime64[D]")
    days = [int((np.datetime64(split[key]) - first).astype(int)) for key in ("validation_from", "test_from")]
    assert abs(days[0] - 90) <= 4
    assert abs(days[1] - 95) <= 4
    assert days[0] < days[1]
    assert "rows at places all over the log" in text


def test_of_a_log_that_begins_nowhere_in_the_middle_nobody_knows_the_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_look, "BLOCKS", 1)
    monkeypatch.setattr(formats, "BLOCK_BYTES", 2**15)
    rows = [dict(zip(("user", "item", "time"), row, strict=True)) for row in visits(60, 30, 100, 1000)]
    (tmp_path / "log.json").write_text(json.dumps(rows))
    text = propose("mine", look_at(str(tmp_path / "log.json")))
    assert yaml.safe_load(text)["data"]["split"] == {"protocol": "leave_one_out"}
    assert "{protocol: temporal, validation_from: DAY, test_from: DAY}" in text


@pytest.mark.parametrize(
    ("events", "items", "preset"),
    [(30, 1000, "context"), (8, 1000, None), (30, 10, None)],  # short histories; items that are come back to
)
def test_order_is_read_where_long_histories_meet_new_items(
    tmp_path: Path, events: int, items: int, preset: str | None
) -> None:
    config, _ = written(tmp_path, visits(60, events, 100, items))
    assert config.get("preset") == preset
    assert config.get("evaluate") == ({"seen": "keep"} if items == 10 else None)


@pytest.mark.parametrize(("events", "length"), [(30, None), (80, 100), (300, 200)])
def test_histories_are_read_as_far_back_as_most_users_have_them(
    tmp_path: Path, events: int, length: int | None
) -> None:
    config, _ = written(tmp_path, visits(20, events, 100, 1000))
    assert config.get("model", {}).get("max_history") == length


@pytest.mark.parametrize(("days", "items", "is_slow"), [(365, 20, True), (60, 20, False), (365, 1000, False)])
def test_habits_of_many_months_are_learned_slowly_and_of_late(
    tmp_path: Path, days: int, items: int, is_slow: bool
) -> None:
    config, _ = written(tmp_path, visits(60, 40, days, items))
    assert ("label_share" in config.get("train", {})) == is_slow
    assert ("optim" in config) == is_slow


def test_a_long_tail_of_rare_items_is_said_and_stays(tmp_path: Path) -> None:
    rows = visits(60, 30, 100, 100) + [(u, 1000 + u, START) for u in range(60)]
    config, text = written(tmp_path, rows)
    assert "min_item_events" not in config["data"]
    assert "# 60 of 160 items have fewer than 5 events, 3.2% of all; to leave them out:\n  # min_item_events: 5" in text


def test_ratings_are_said_to_count_as_wishes(tmp_path: Path) -> None:
    rows = visits(60, 30, 100, 1000)
    table = pa.table({name: [row[n] for row in rows] for n, name in enumerate(("user", "item", "time"))})
    table = table.append_column("rating", pa.array([1 + n % 5 if n % 7 else None for n in range(len(rows))]))
    pq.write_table(table, tmp_path / "log.parquet")
    text = propose("mine", look_at(str(tmp_path / "log.parquet")))
    assert (
        "#   - {column: rating, below: 3, reason: rated low} # every rating counts as a wish; 40% are below 3" in text
    )

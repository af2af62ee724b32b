"""A row a user with a list of its events: a row an event, and what does not go together is set aside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.load import load_config
from pipelines.config.schema import EventSource
from pipelines.log.event_lists import row_an_event, rows_at_once
from pipelines.log.formats import read_blocks
from pipelines.log.normalise import needed_columns
from pipelines.log.proposal.first_look import look_at
from pipelines.log.proposal.write import propose
from pipelines.log.sources import fragments

SOURCE = EventSource(path="x")
KINDS = [
    pa.list_(pa.int64()),
    pa.large_list(pa.int64()),
    pa.list_(pa.int64(), 2),
    pa.list_view(pa.int64()),
    pa.large_list_view(pa.int64()),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_lists_of_any_layout_are_unrolled(kind: pa.DataType) -> None:
    items = pa.array([[1, 2], [3, 4]], kind)
    table = pa.table({"user": ["a", "b"], "item": items, "time": pa.array([[5, 6], [7, 8]], pa.list_(pa.int64()))})
    found, wrong = row_an_event(table, SOURCE)
    assert found.to_pydict() == {"user": ["a", "a", "b", "b"], "item": [1, 2, 3, 4], "time": [5, 6, 7, 8]}
    assert wrong == []


def test_a_basket_has_the_time_of_its_row() -> None:
    found, _ = row_an_event(pa.table({"user": [1], "item": [["x", "y"]], "time": [9]}), SOURCE)
    assert found.to_pydict() == {"user": [1, 1], "item": ["x", "y"], "time": [9, 9]}


def test_a_log_without_lists_of_items_or_times_is_left_alone() -> None:
    table = pa.table({"user": [1], "item": [2], "time": [3], "tags": [["a", "b"]]})
    assert row_an_event(table, SOURCE)[0] is table


LISTS = st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(LISTS, LISTS), max_size=8))
def test_every_event_is_there_in_order_or_its_row_is_set_aside(rows: list[tuple[Any, Any]]) -> None:
    kind = pa.list_(pa.int64())
    table = pa.table({"user": pa.array(range(len(rows)), pa.int64()), "item": pa.array([a for a, _ in rows], kind),
                      "time": pa.array([b for _, b in rows], kind)})  # fmt: skip
    found, wrong = row_an_event(table, SOURCE)
    expected = [
        {"user": user, "item": item, "time": time}
        for user, (items, times) in enumerate(rows)
        if len(_events(items)) == len(_events(times))
        for item, time in zip(_events(items), _events(times), strict=True)
    ]
    assert found.to_pylist() == expected
    assert [json.loads(line)["user"] for line in wrong] == [
        user for user, (items, times) in enumerate(rows) if len(_events(items)) != len(_events(times))
    ]


def _events(values: list[Any] | None) -> list[Any]:
    return [None] if values is None else values


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_missing_list_is_a_row_that_lacks_a_value(kind: pa.DataType) -> None:
    table = pa.table({"user": [1, 2], "item": [7, 8], "time": pa.array([None, [1, 1]], kind)}).slice(0, 1)
    found, wrong = row_an_event(table, SOURCE)
    assert found.to_pylist() == [{"user": 1, "item": 7, "time": None}]
    assert wrong == []


def test_few_rows_with_long_lists_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.log.formats.BLOCK_ROWS", 100)
    lists = [list(range(50))] * 10
    pq.write_table(pa.table({"user": range(10), "item": lists, "time": lists}), tmp_path / "x.parquet")
    source = EventSource(path=str(tmp_path / "x.parquet"))
    (piece,) = fragments(source, needed_columns(source))
    blocks = [block.table.num_rows for block in read_blocks(piece, source, needed_columns(source))]
    assert blocks == [100] * 5
    assert rows_at_once(10, 10, 100) == 100


def test_lists_in_json_lines_too(tmp_path: Path) -> None:
    rows = [{"user": 1, "item": [1, 2], "time": [3, 4]}, {"user": 2, "item": [5], "time": [6, 7]}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = EventSource(path=str(tmp_path / "x.jsonl"))
    (piece,) = fragments(source, needed_columns(source))
    blocks = list(read_blocks(piece, source, needed_columns(source)))
    assert [item for block in blocks for item in block.table["item"].to_pylist()] == [1, 2]
    assert sum(len(block.unreadable) for block in blocks) == 1


def test_a_configuration_is_proposed_for_lists_of_events(tmp_path: Path) -> None:
    rows = {"uid": list(range(40)), "item_ids": [[n, n + 1, n + 2] for n in range(40)],
            "timestamps": [[1_700_000_000 + n, 1_700_000_100 + n, 1_700_000_200 + n] for n in range(40)]}  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    look = look_at(str(tmp_path / "x.parquet"), events=True)
    assert look.rows == 120
    (tmp_path / "c.yaml").write_text(propose("lists", look))
    events = load_config(tmp_path / "c.yaml").data.events
    assert (events.user, events.item, events.time, events.time_unit) == ("uid", "item_ids", "timestamps", "s")
    assert "each of their values is an event" in (tmp_path / "c.yaml").read_text()


def test_a_table_with_lists_of_one_length_keeps_its_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "tags": [["a"], ["b"]], "words": [["c"], ["d"]]}), tmp_path / "x.parquet")
    assert look_at(str(tmp_path / "x.parquet")).rows == 2


@pytest.mark.parametrize("kind", [pa.list_(pa.null()), pa.large_list(pa.null()), pa.list_view(pa.null())])
def test_missing_lists_beside_empty_ones_are_rows_without_a_value(kind: pa.DataType) -> None:
    block = pa.table({"user": [1, 2, 3], "item": pa.array([None, [], None], kind)})
    table, wrong = row_an_event(block, SOURCE)
    assert (table.to_pylist(), wrong) == ([{"user": 1, "item": None}, {"user": 3, "item": None}], [])

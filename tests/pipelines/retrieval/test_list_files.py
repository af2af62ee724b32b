"""One file of lists, whatever the columns hold that are shown beside the ids."""

from __future__ import annotations

import csv
import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.options import list_file
from pipelines.config.home_location import home_folder, shown
from pipelines.errors import UserError
from pipelines.retrieval.list_files import write_lists
from tests.pipelines.s3_server import s3_server, use_s3

MOMENT = dt.datetime(2024, 5, 6, 7, 8, 9)
SHOWN: dict[str, tuple[pa.Array, Any, str]] = {  # values, and the first one in JSON and in CSV
    "struct": (pa.array([{"a": 1, "b": MOMENT}, None]), {"a": 1, "b": "2024-05-06T07:08:09"},
               '{"a": 1, "b": "2024-05-06T07:08:09"}'),
    "timestamp": (pa.array([MOMENT, None], pa.timestamp("us")), "2024-05-06T07:08:09", "2024-05-06T07:08:09"),
    "zoned": (pa.array([MOMENT, None], pa.timestamp("us", "UTC")), "2024-05-06T07:08:09+00:00",
              "2024-05-06T07:08:09+00:00"),
    "date": (pa.array([MOMENT.date(), None]), "2024-05-06", "2024-05-06"),
    "time": (pa.array([MOMENT.time(), None]), "07:08:09", "07:08:09"),
    "duration": (pa.array([dt.timedelta(seconds=61), None]), "0:01:01", "0:01:01"),
    "decimal": (pa.array([Decimal("12.50"), None]), "12.50", "12.50"),
    "bytes": (pa.array([b"\xff", None]), "\\xff", "\\xff"),
    "list": (pa.array([["x", "y"], None]), ["x", "y"], "x|y"),
    "lists": (pa.array([[["x"], ["y"]], None]), [["x"], ["y"]], '[["x"], ["y"]]'),
    "map": (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), [["k", 1]], '[["k", 1]]'),
    "dictionary": (pa.array(["x", None]).dictionary_encode(), "x", "x"),
    "object of lists": (pa.array([{"tags": ["x"]}, None]), {"tags": ["x"]}, '{"tags": ["x"]}'),
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_a_shown_column_of_any_type_is_written_to_any_format(tmp_path: Path, name: str) -> None:
    values, in_json, in_csv = SHOWN[name]
    block = pa.table({"user": [1, 2], "show_x": values})
    for suffix in ("parquet", "csv", "jsonl"):
        assert write_lists([block, block], tmp_path / f"x.{suffix}") == 4
    lines = [json.loads(line)["show_x"] for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert lines == [in_json, None, in_json, None]
    with (tmp_path / "x.csv").open() as file:
        assert [row["show_x"] for row in csv.DictReader(file)] == [in_csv, "", in_csv, ""]
    assert pq.read_table(tmp_path / "x.parquet")["show_x"].to_pylist() == block["show_x"].to_pylist() * 2


VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=3) | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, min_size=1, max_size=2),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_whatever_arrow_holds_comes_out_a_line_each(tmp_path: Path, values: list[Any]) -> None:
    try:
        block = pa.table({"show_x": pa.array(values)})
    except (pa.ArrowException, TypeError):
        return
    for suffix in ("csv", "jsonl"):
        assert write_lists([block], tmp_path / f"x.{suffix}") == len(values)
    lines = (tmp_path / "x.jsonl").read_bytes().split(b"\n")  # and at nothing else: str.splitlines has U+0085 too
    assert len(lines) - 1 == len(values)


def test_a_file_of_lists_may_lie_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server("bucket") as (address, store):
        use_s3(monkeypatch, address, tmp_path)
        monkeypatch.setenv("MIND_CACHE", str(tmp_path / "cache"))
        out = list_file("s3://bucket/lists/x.parquet")
        assert out is not None
        assert shown(out) == "s3://bucket/lists/x.parquet"
        assert write_lists([pa.table({"user": [1]})], out) == 1
        with store.open_input_file("bucket/lists/x.parquet") as file:
            assert pq.read_table(file)["user"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("s3://bucket/x.xls", "--out s3://bucket/x.xls: must end in .parquet, .csv, .jsonl"),
        ("s3://key:secret@bucket/x.csv", "credentials and AWS_ENDPOINT_URL come from the environment"),
        ("ftp://host/x.csv", "must be a path, or a URI that begins with s3:// or gs://"),
    ],
)
def test_a_place_for_lists_that_cannot_be_is_refused_in_a_line(out: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        list_file(out)
    assert said in str(refused.value)


def test_a_folder_that_happens_to_be_called_as_a_mirror_is_a_folder(tmp_path: Path) -> None:
    for name in ("mind-mirror/s3/bucket", ".mind-mirror/other/x", "mind-mirror"):
        out = tmp_path / name / "x.csv"
        assert shown(out) == str(out)
        assert write_lists([pa.table({"user": [1]})], out) == 1
        assert home_folder(str(tmp_path / name)) == tmp_path / name
    with pytest.raises(ValueError, match=r"is this machine's copy of s3://bucket/x; give that address"):
        home_folder(str(tmp_path / ".mind-mirror/s3/bucket/x"))

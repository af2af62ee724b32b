"""A file of a log cannot take more memory than it is allowed, whatever is in it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.schema import DataConfig, TableSource
from pipelines.dataset.sorted_events import SortedEvents
from pipelines.errors import UserError
from pipelines.log.formats import Block, read_blocks
from pipelines.log.limits import MAX_DEPTH, is_too_deep, suspects
from pipelines.log.sources import fragments
from pipelines.preprocess.heavy_users import MANY, heaviest, require_room_to_sort, warn_of_heaviest

COLUMNS = ["user", "item", "time"]
ROW = b'{"user": 1, "item": 2, "time": 3}\n'


def blocks(path: Path, **settings: Any) -> list[Block]:
    source = TableSource(path=str(path), **settings)
    (piece,) = fragments(source, COLUMNS)
    return list(read_blocks(piece, source, COLUMNS))


def counted(found: list[Block]) -> tuple[int, int]:
    return sum(block.table.num_rows for block in found), sum(len(block.unreadable) for block in found)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 2000, 50_000])
@pytest.mark.parametrize("brackets", [(b'{"a":', b"}"), (b"[", b"]"), (b'[{"a":', b"}]")])
def test_json_that_is_nested_without_end_is_a_bad_row(
    tmp_path: Path, depth: int, brackets: tuple[bytes, bytes]
) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(ROW + b'{"user": 1, "item": ' + brackets[0] * depth + b"1" + brackets[1] * depth + b"}\n" + ROW)
    assert counted(blocks(file)) == (2, 1)


def test_a_long_line_is_a_bad_row_and_is_not_kept_whole(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(ROW + b'{"user": 1, "note": "' + b"x" * 5000 + b'"}\n' + ROW)
    found = blocks(file, max_row_bytes=4000)
    assert counted(found) == (2, 1)
    assert len(found[0].unreadable[0]) < 300
    assert counted(blocks(file)) == (3, 0)


def test_a_line_longer_than_any_block_does_not_hide_the_rows_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.log.formats.BLOCK_BYTES", 64)
    file = tmp_path / "log.jsonl"
    for endless in (b"", b"\n"):
        file.write_bytes(ROW * 3 + b'{"user": "' + b"x" * 1000 + b'"}\n' + ROW * 3 + b"y" * 500 + endless)
        assert counted(blocks(file, max_row_bytes=100)) == (6, 2)


@given(
    st.integers(20, 200),
    st.lists(st.sampled_from([b"[1]", b'{"a": 1}', b"x" * 150, b"[" * 130, b"{}", b""]), max_size=8),
)
def test_no_line_that_is_too_long_or_too_deep_goes_unsuspected(longest: int, lines: list[bytes]) -> None:
    wrong = any(len(line) > longest or is_too_deep(line) for line in lines)
    assert suspects(b"\n".join(lines), longest) or not wrong


@pytest.mark.parametrize("line", [b"null", b" null\r", b"nul", b'"x"', b"[1]", b"1", b"true", b""])
@pytest.mark.parametrize("place", [0, 1])
def test_a_line_that_is_no_object_is_a_bad_row(tmp_path: Path, line: bytes, place: int) -> None:
    file = tmp_path / "log.jsonl"
    lines = [ROW.strip(), ROW.strip()]
    lines.insert(place, line)
    file.write_bytes(b"\n".join(lines))
    assert counted(blocks(file)) == (2, bool(line))


def test_a_csv_line_without_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.log.formats.BLOCK_BYTES", 1000)
    file = tmp_path / "log.csv"
    file.write_text('user,item,time\n1,2,3\n1,"' + "x" * 5000 + "\n")
    with pytest.raises(UserError, match="a line of more than"):
        blocks(file)


@pytest.mark.parametrize("name", ["log.csv.gz", "log.jsonl.gz"])
def test_a_bomb_is_told_and_a_setting_lets_it_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("pipelines.log.limits.FREE_BYTES", 1000)
    file = tmp_path / name
    row = ROW if "json" in name else b"1,2,3\n"
    file.write_bytes(gzip.compress((b"" if "json" in name else b"user,item,time\n") + row * 200_000))
    with pytest.raises(UserError, match=r"log\..*gz: .*expands to more than 200 times its .* bytes.*max_expansion"):
        blocks(file)
    assert counted(blocks(file, max_expansion=2000)) == (200_000, 0)


def test_a_compressed_file_that_is_small_may_expand_as_it_likes(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl.gz"
    file.write_bytes(gzip.compress(ROW * 100_000))
    assert counted(blocks(file)) == (100_000, 0)


def data(**settings: Any) -> DataConfig:
    return DataConfig.model_validate({"events": {"path": "log"}, **settings})


def events(users: list[int]) -> SortedEvents:
    codes = np.array(users, np.int32)
    return SortedEvents(pa.array(["a", "b"]), pa.array(["i"]), codes, np.zeros_like(codes), np.arange(len(codes)))


def test_a_part_that_no_memory_could_sort_is_refused_in_bytes() -> None:
    counts = np.array([10, 10**9, 5])
    require_room_to_sort(data(), counts, [(0, 1), (2, 3)], have=10**9)
    with pytest.raises(UserError, match=r"log: 1,000,000,010 events .* 120 GB, and there are 1\.00 GB"):
        require_room_to_sort(data(), counts, [(0, 2), (2, 3)], have=10**9)


def test_the_heaviest_user_is_found_and_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert heaviest(events([0, 1, 1])) == ["b", 2]
    assert heaviest(events([])) == ["", 0]
    assert json.loads(json.dumps(heaviest(events([0])))) == ["a", 1]
    warn_of_heaviest(data(), [["a", 3], ["b", MANY]])
    assert capsys.readouterr().err == ""
    warn_of_heaviest(data(), [["a", 3], ["b", MANY + 1]])
    assert "User b has 100,001 events" in capsys.readouterr().err
    warn_of_heaviest(data(max_user_events=50), [["b", MANY + 1]])
    assert capsys.readouterr().err == ""

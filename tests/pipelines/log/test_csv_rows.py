import csv as plain_csv
import io
import re
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.config.schema import EventSource
from pipelines.errors import UserError
from pipelines.log.csv_rows import Dialect, column_names, csv_rows
from pipelines.log.formats import read_blocks
from pipelines.log.normalise import needed_columns
from pipelines.log.sources import fragments

BIG = 2**20


def dialect(delimiter: str = ",", quote: str | None = '"', names: list[str] | None = None) -> Dialect:
    return Dialect("log.csv", delimiter, quote, names)


def rows_of(
    text: str, block: int = BIG, way: Dialect | None = None
) -> tuple[list[list[str | None]], list[str], list[str]]:
    """The rows, the lines that are none, and those within values that look like rows."""
    way = way or dialect()
    names = column_names(io.BytesIO(text.encode()).read, way, block) if way.names is None else way.names
    blocks = list(csv_rows(io.BytesIO(text.encode()).read, way, names, block))
    rows = [list(row.values()) for each in blocks for row in each.table.to_pylist()]
    return rows, [line for each in blocks for line in each.lines], [line for each in blocks for line in each.inside]


LINES = [f"{n},item {n},{n}" for n in range(400)]


@pytest.mark.parametrize("block", [64, BIG])
@pytest.mark.parametrize("place", [0, 200, 399])
def test_a_lone_quote_costs_its_own_line_and_no_other(place: int, block: int) -> None:
    lines = [*LINES]
    lines[place] = f'"{place},item,7'
    rows, bad, _ = rows_of("\n".join(["user,item,time", *lines]) + "\n", block)
    assert [row[0] for row in rows] == [str(n) for n in range(400) if n != place]
    assert bad == [lines[place]]


def test_two_lone_quotes_do_not_swallow_what_is_between_them() -> None:
    lines = [*LINES]
    lines[100], lines[300] = '"100,a,7', '300,"b,7'
    rows, bad, _ = rows_of("\n".join(["user,item,time", *lines]) + "\n")
    assert (len(rows), bad) == (398, ['"100,a,7', '300,"b,7'])


def test_a_lone_quote_that_another_one_closes_with_too_few_values_is_a_line_by_itself() -> None:
    text = 'user,item,time\n1,"a,5\n2,b,6\n3,12",7\n4,d,8\n'  # a,5 / 2,b,6 / 3,12 would be one value of three lines
    rows, bad, _ = rows_of(text.replace("4,d,8", "4,d"))
    assert rows == [["1", "a,5\n2,b,6\n3,12", "7"]], "three values: by the rules, it is a row"
    assert bad == ["4,d"]
    rows, bad, inside = rows_of(text.replace("7\n", "7,9\n"))
    assert [row[0] for row in rows] == ["2", "4"]
    assert bad == ['1,"a,5', '3,12",7,9']
    assert inside == []


def test_lines_that_look_like_rows_inside_a_value_are_named() -> None:
    rows, bad, inside = rows_of('user,item,time\n1,"a,5\n2,b,6\n3,12",7\n4,d,8\n')
    assert (len(rows), bad, inside) == (2, [], ["2,b,6"])
    assert rows_of('user,item,time\n1,"a\nlong\ntitle",5\n\n\n2,b,6\n')[2] == []


def test_values_over_several_lines_doubled_quotes_and_quotes_in_plain_text_are_read() -> None:
    rows, bad, _ = rows_of('user,item,time\n1,"a ""b"",\nc",5\n2,12" pipe,6\n3,"",7\r\n4,a""b,8\n', 40)
    assert rows == [["1", 'a "b",\nc', "5"], ["2", '12" pipe', "6"], ["3", None, "7"], ["4", 'a""b', "8"]]
    assert bad == []


def test_a_quote_may_be_another_character_or_none() -> None:
    assert rows_of("u,i\n'1,5',\"a\n", way=dialect(quote="'")) == ([["1,5", '"a']], [], [])
    assert rows_of('u,i\n"1,"a\n', way=dialect(quote=None)) == ([['"1', '"a']], [], [])


def test_any_line_end_ends_a_line() -> None:
    for end in ("\n", "\r\n", "\r"):
        rows, bad, _ = rows_of(end.join(["user,item", '1,"a"', '"2,b', "3,c"]), 16)
        assert (rows, bad) == ([["1", "a"], ["3", "c"]], ['"2,b']), repr(end)


def test_a_line_without_an_end_is_an_error_not_a_memory_full() -> None:
    with pytest.raises(UserError, match=r"log\.csv: a line of more than"):
        rows_of("x" * 5000, 1000)


PIECES = st.sampled_from(['"', '""', ",", "\n", "\r\n", "a", "é", " ", '","', '"\n"', ",2,3\n", '"x",2,3\n', "\n\n"])


@settings(deadline=None)
@given(st.lists(PIECES, max_size=60), st.integers(150, 300))
@example(['"', "\n", ",2,3\n", '"', ",", "a", ",", "a"], 150)
def test_every_line_is_in_a_row_or_named_as_none_whatever_the_size_of_blocks(pieces: list[str], block: int) -> None:
    body = "".join(f"{piece}#{n}#" for n, piece in enumerate(pieces))
    way = dialect(names=["a", "b", "c"])
    whole = rows_of(body, way=way)
    for rows, bad, _ in (whole, rows_of(body, block, way)):
        found = re.findall("#[0-9]+#", "".join([value or "" for row in rows for value in row] + bad))
        assert sorted(found) == sorted(f"#{n}#" for n in range(len(pieces)))
        assert all(len(line.splitlines()) == 1 for line in bad)
    if len(body.encode()) <= block:
        assert rows_of(body, block, way) == whole


@pytest.mark.parametrize("pad", range(58))
def test_a_value_over_several_lines_may_lie_across_two_blocks(pad: int) -> None:
    text = f'{"y" * pad},,\n,"0""\nxx\nyy",\n1,2,3\n'
    found, bad, _ = rows_of(text, 64, dialect(names=["a", "b", "c"]))
    assert (found, bad) == ([["y" * pad or None, None, None], [None, '0"\nxx\nyy', None], ["1", "2", "3"]], [])


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS)), st.sampled_from([plain_csv.QUOTE_MINIMAL, plain_csv.QUOTE_ALL]),
       st.integers(8, 200))  # fmt: skip
def test_what_a_writer_of_csv_writes_is_read_in_blocks_of_any_size(
    rows: list[tuple[str, str, str]], quoting: int, block: int
) -> None:
    out = io.StringIO()
    plain_csv.writer(out, quoting=quoting, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    found, bad, _ = rows_of(out.getvalue(), max(block, 64), dialect(names=["a", "b", "c"]))
    assert bad == []
    assert found == [[value or None for value in row] for row in rows]


@pytest.mark.parametrize("block", [8, BIG])
def test_a_byte_order_mark_that_is_a_value_stays_at_the_start_of_any_block(block: int) -> None:
    mark = "\ufeff"
    found, bad, _ = rows_of(f"a,b\n{mark},1\n{mark}{mark},2\nx,3\n", block)
    assert (found, bad) == ([[mark, "1"], [2 * mark, "2"], ["x", "3"]], [])


def test_a_stray_quote_in_a_large_file_is_as_fast_as_none(tmp_path: Path) -> None:
    lines = 20_000 * ['7,"a title, quoted",5']
    lines[10_000] = '7,"a title,5'
    rows, bad, _ = rows_of("\n".join(["u,i,t", *lines]), 2**16)
    assert (len(rows), bad) == (19_999, ['7,"a title,5'])


@pytest.mark.parametrize(
    ("text", "names"),
    [("user,item", ["user", "item"]), ('"a\nb",c\n1,2\n', ["a\nb", "c"]), ('"user,item\n1,2\n', ['"user', "item"]),
     ("\n\r\nuser\n", ["user"]), ("", []), ('""', [""])],
)  # fmt: skip
def test_the_first_line_has_the_names_whatever_ends_it(text: str, names: list[str]) -> None:
    assert column_names(io.BytesIO(text.encode()).read, dialect(), BIG) == names


@pytest.mark.parametrize("line", [b"\xac,5", b"1,2,3,\xff"])
def test_a_wrong_row_in_another_encoding_is_told_as_such_and_nothing_else_is_printed(
    line: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.csv"
    file.write_bytes(b"user,item,time\n1,2,3\n" + line + b"\n1,3,4\n")
    source = EventSource(path=str(file))
    before = sys.unraisablehook
    (piece,) = fragments(source, needed_columns(source))
    with pytest.raises(UserError, match=r"e\.csv: not in the declared encoding .* set encoding:, e\.g\. latin-1"):
        list(read_blocks(piece, source, needed_columns(source)))
    assert capfd.readouterr() == ("", "")
    assert sys.unraisablehook is before

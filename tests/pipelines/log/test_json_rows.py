import io
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.log.json_rows import json_rows, keys_of

BIG = 2**20


def rows_of(
    text: str, columns: list[str], block: int = BIG, times: str | None = None
) -> tuple[list[object], list[str]]:
    blocks = list(json_rows(io.BytesIO(text.encode()).read, "log.json", columns, times, block))
    rows = [tuple(row.get(name) for name in columns) for each in blocks for row in each.table.to_pylist()]
    return rows, [line for each in blocks for line in each.lines]


OBJECTS = [{"user": n, "item": f"a {n}", "deep": {"x": [n]}} for n in range(50)]


@pytest.mark.parametrize("block", [300, BIG])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_read_as_its_objects_on_lines(indent: int | None, block: int) -> None:
    expected = [(n, f"a {n}") for n in range(50)]
    for text in (
        json.dumps(OBJECTS, indent=indent),
        f"\n [ {json.dumps(OBJECTS, indent=indent)[1:]}\n",
        "\n".join(json.dumps(each, indent=indent) for each in OBJECTS),
    ):
        assert rows_of(text, ["user", "item"], block) == (expected, [])


def test_an_array_that_breaks_off_is_an_error_that_shows_where() -> None:
    with pytest.raises(UserError, match=r"log.json: cannot be read as JSON from '\{\"user\": 2, \"it' on"):
        rows_of('[{"user": 1, "item": 2},\n{"user": 2, "it', ["user"])


def test_what_is_no_object_in_an_array_is_a_line_that_is_no_row() -> None:
    assert rows_of('[{"user": 1}, 7, {"user": 2, "user": 3}]', ["user"]) == ([(1,)], ["7", '{"user": 2, "user": 3}'])
    assert rows_of("[]", ["user"]) == ([], [])


def test_a_key_of_many_types_is_text() -> None:
    rows, bad = rows_of('{"id": 1}\n{"id": "x"}\n{"id": 2.0}\n{"id": null}\nno\n', ["id"])
    assert (rows, bad) == ([("1",), ("x",), ("2",), (None,)], ["no"])
    assert rows_of('{"id": 1}\n{"id": [1]}\n{"id": "x"}\n', ["id"]) == ([("1",), ("x",)], ['{"id": [1]}'])
    assert rows_of('{"id": ["a"]}\n{"id": "b"}\n{"id": [1]}\n', ["id"])[0] == [(["a"],), (["b"],), (["1"],)]
    assert rows_of('{"id": [["a"]]}\n{"id": [1, [2]]}\n', ["id"])[1] == []


@pytest.mark.parametrize("block", [40, BIG])
def test_text_that_looks_like_a_time_is_text_but_in_the_time_column(block: int) -> None:
    lines = ['{"user": "2024-01-01", "tags": ["2024-01-01"], "time": "2024-01-01"}', '{"user": "b", "time": null}',
             '{"user": "2024-01-02T10:00:00Z", "tags": [], "time": "2024-01-01"}']  # fmt: skip
    (blocks,) = (list(json_rows(io.BytesIO("\n".join(lines).encode()).read, "", ["user", "tags"], "time", block)),)
    users = [user for each in blocks for user in each.table["user"].to_pylist()]
    assert users == ["2024-01-01", "b", "2024-01-02T10:00:00Z"]
    assert blocks[0].table["tags"][0].as_py() == ["2024-01-01"]
    assert pa.types.is_timestamp(blocks[0].table["time"].type)


def test_keys_of_objects_within_objects_have_their_way_there() -> None:
    kind = pa.schema(
        [("a", pa.int64()), ("b", pa.struct([("c", pa.int64()), ("d", pa.list_(pa.struct([("e", pa.int64())])))]))]
    )
    assert list(keys_of(kind)) == ["a", "b.c", "b.d[].e"]


VALUES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["id", "x"]), VALUES) | VALUES, max_size=8), st.integers(60, 400))
def test_every_object_is_a_row_and_every_other_value_a_line(values: list[object], block: int) -> None:
    objects = sum(isinstance(value, dict) for value in values)
    for text in ("\n".join(map(json.dumps, values)), json.dumps([{}, *values])):
        rows, bad = rows_of(text, ["id", "x"], block)
        assert (len(rows) - (text[:1] == "["), len(bad)) == (objects, len(values) - objects)

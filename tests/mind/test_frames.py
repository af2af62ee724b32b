"""Frames of any library are the same table; what is none is refused in a line."""

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mind
from mind.frame_log import guessed
from mind.frames import as_arrow

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
ROWS = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), TEXTS, st.floats(allow_nan=False)), max_size=8)


@given(ROWS)
def test_pandas_polars_and_arrow_give_the_same_values(rows: list[tuple[int, str, float]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    arrays = [pa.array(c, t) for c, t in zip(columns, (pa.int64(), pa.string(), pa.float64()), strict=True)]
    table = pa.table(arrays, ["user", "item", "time"])
    frames = [table, table.to_pandas(), pl.from_arrow(table), table.to_batches()[0] if rows else table,
              pl.from_arrow(table).lazy(), dict(zip(table.column_names, arrays, strict=True))]  # fmt: skip
    assert all(as_arrow(frame).to_pylist() == table.to_pylist() for frame in frames)


def test_categories_are_plain_values_and_an_index_is_no_column() -> None:
    pandas = pd.DataFrame({"item": pd.Categorical(["a", "b", "a"])}, index=[7, 8, 9])
    polars = pl.DataFrame({"item": ["a", "b", "a"]}, schema={"item": pl.Categorical})
    for frame in (pandas, polars):
        assert as_arrow(frame).to_pydict() == {"item": ["a", "b", "a"]}
        assert not pa.types.is_dictionary(as_arrow(frame).schema.field("item").type)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ([1, 2], "events: list: must be a pandas or Polars frame, an Arrow table or a mapping of columns"),
        ("log.csv", "events: str: must be a pandas"),
        (pd.Series([1]), "events: Series: must be a pandas"),
        ({"a": [1, "x"]}, "events: cannot be read as a table .*'x'"),
        ({"a": [1], "b": [1, 2]}, "events: cannot be read as a table"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "events: cannot be read as a table .*Duplicate"),
        (pa.table([[1], [2]], ["a", "a"]), "events: two columns are named 'a'"),
    ],
)
def test_what_is_no_table_is_one_line(frame: object, message: str) -> None:
    with pytest.raises(mind.UserError, match=f"^{message}"):
        as_arrow(frame, "events")


def test_the_kind_of_a_feature_is_told_by_its_column() -> None:
    table = pa.table({"price": [1.5], "genres": [["a"]], "brand": ["x"], "year": [1999]})
    kinds = [guessed(table, name, "items")["kind"] for name in table.column_names]
    assert kinds == ["numeric", "multi", "categorical", "categorical"]
    with pytest.raises(mind.UserError, match=r"^items: no column 'size'; it has price, genres, brand, year$"):
        guessed(table, "size", "items")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": "who"}, "events: no column 'who'; it has user, item, time"),
        ({"name": "../x"}, "name='../x': must be letters"),
        ({"data": {"min_item_event": 2}}, r"from_frame\(\): data.min_item_event: unknown key, did you mean"),
        ({"evaluate": {"seen": "x"}}, r"from_frame\(\): evaluate.seen='x': must be 'filter' or 'keep'"),
        ({"item_features": ["brand"]}, "item_features: needs items=, a frame"),
        ({"items": {"item": [1], "brand": ["x"]}, "item_features": "brand"}, "item_features='brand': must be a list"),
        ({"items": {"id": [1]}}, "items: no column 'item'; it has id"),
        ({"home": "http://host/x"}, "home=http://host/x: must be a path, or a URI"),
        ({"preset": "paper"}, r"from_frame\(\): preset: must be given to fit\(\)"),
    ],
)
def test_a_mistake_in_from_frame_is_one_line_and_writes_nothing(
    arguments: dict[str, object], message: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    frame = {"user": [1, 1, 2], "item": [5, 6, 5], "time": [1, 2, 3]}
    with pytest.raises(mind.UserError, match=f"^{message}") as found:
        mind.Dataset.from_frame(frame, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())  # type: ignore[attr-defined]


def test_a_mistake_is_one_line_in_a_notebook() -> None:
    assert mind.UserError("no column").__class__._render_traceback_(mind.UserError("no column")) == [
        "mind: error: no column"
    ]

"""Features of columns that nobody would choose: sentinels, money as text, lists of lists, objects, any type at all."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mind_core.special_rows import MISSING
from pipelines.config.schema import Feature, FeatureTable
from pipelines.dataset.feature_rows import FeatureRows
from pipelines.dataset.vocabulary import FeatureEncoder, fences, fit
from pipelines.errors import UserError

PRICES = [float(n % 50) for n in range(1000)]
DBL_MAX = 1.7976931348623157e308


def numeric(values: list[float | None]) -> tuple[FeatureEncoder, np.ndarray]:
    column = pa.array(values, pa.float64())
    encoder = fit("price", Feature(kind="numeric"), column)
    return encoder, encoder.encode(column).to_numpy(zero_copy_only=False)


@pytest.mark.parametrize("odd", [DBL_MAX, -DBL_MAX, 1e300, 1e12])
def test_an_outlier_leaves_the_other_values_apart(odd: float) -> None:
    encoder, found = numeric([*PRICES, odd])
    plain, expected = numeric(PRICES)
    assert np.isfinite(found).all()
    assert found[:1000].std() > 0.1
    assert np.corrcoef(found[:1000], expected)[0, 1] > 0.9999
    assert (plain.low, plain.high) == (None, None)
    assert encoder.low is not None
    assert abs(found[1000]) < 100


def test_numbers_without_outliers_are_scaled_as_ever() -> None:
    for values in ([1.0, 2.0, 3.0, 4.0, 100.0], [0.0] * 900 + [1.0] * 100, [0.0, DBL_MAX], list(range(10**4))):
        encoder, found = numeric([float(value) for value in values])
        assert encoder.low is None
        assert np.isfinite(found).all()
    assert fences(np.sort(np.random.default_rng(0).lognormal(0, 1, 10**5))) is None


@example([0.0, 0.0, 1.779894192932986e306, 1.779894192932986e306], "numeric")
@given(st.lists(st.none() | st.floats(), max_size=30), st.sampled_from(["numeric", "bucket"]))
def test_any_numbers_at_all_have_a_finite_scale(values: list[float | None], kind: str) -> None:
    column = pa.array(values, pa.float64())
    encoder = fit("n", Feature.model_validate({"kind": kind}), column)
    asked = pa.array([DBL_MAX, -DBL_MAX, 0.0, float("inf"), *values], pa.float64())
    found = encoder.encode(asked).drop_null().to_numpy()
    assert np.isfinite(found).all()
    assert [value is None for value in encoder.encode(asked).to_pylist()[4:]] == [
        kind == "numeric" and (value is None or not np.isfinite(value)) for value in values
    ]


@pytest.mark.parametrize("kind", ["numeric", "bucket"])
def test_numbers_of_which_none_is_one_are_refused_with_an_example(kind: str) -> None:
    feature = Feature.model_validate({"kind": kind})
    for texts, shown in ((["$12.99", "$5"], r"'\$12.99'"), ([None, "12,99"], "'12,99'")):
        with pytest.raises(UserError, match=f"feature 'price': no value is a number, such as {shown}; write 12.99"):
            fit("price", feature, pa.array(texts))
    fit("price", feature, pa.array([None, "", "NA"]))


def table(path: Path, **columns: object) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def rows(path: str, **fields: object) -> FeatureRows:
    return FeatureRows.read(FeatureTable.model_validate({"path": path, "id": "id", **fields}))


def test_what_is_odd_in_a_table_is_noted(tmp_path: Path) -> None:
    price = pa.array(["12.99", "$5", "7", "", "8", "9", "10", "1e300", "1e300"])
    path = table(tmp_path / "items.parquet", id=list(range(9)), price=price)
    found = rows(path, features={"price": {"kind": "numeric"}})
    notes = found.notes(found.fit(np.ones(9, bool)))
    assert [(name.split(",")[0], count, example) for name, count, example in notes] == [
        ("Values of 'price' that are no numbers", 1, "$5"),
        ("Outliers of 'price'", 2, "1e+300 (2 times)"),
    ]
    found = rows(path, features={"price": {"kind": "numeric", "null_values": ["$5", "1e300"]}})
    assert found.notes(found.fit(np.ones(9, bool))) == []


def test_lines_of_a_table_that_are_no_rows_are_noted(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('id,x\n1,a\n2,"b\n3,c,d\n')
    found = rows(str(tmp_path / "items.csv"), features={"x": {}})
    assert found.notes(found.fit(np.ones(1, bool))) == [(f"Lines of {tmp_path}/items.csv that are no rows", 2, '2,"b')]


NESTED = [
    pa.array([[["a", "b"], ["a", None]], None, [], [None, []]]),  # Amazon 2014's categories
    pa.array([["a", "b"], None, [None, None], None], pa.list_(pa.string(), 2)),
    pa.array([["a", "b"], None, [], []], pa.large_list(pa.string())),
    pa.array([["a", "b"], None, [], []], pa.list_view(pa.string())),
    pa.array([[["a", "b"]], None, [], []], pa.list_(pa.list_(pa.string(), 2))),
    pa.array([[["b", "a"], []], None, [], []], pa.large_list(pa.list_(pa.large_string()))),
    pa.array([[["x"]], [["a", "b"]], None, [], []]).slice(1),
]


@pytest.mark.parametrize("column", NESTED, ids=[str(each.type) for each in NESTED])
def test_lists_of_any_layout_and_depth_are_their_values(column: pa.Array) -> None:
    encoder = fit("tags", Feature(kind="multi"), column)
    assert encoder.values is not None
    assert encoder.values.to_pylist() == ["a", "b"]
    assert [sorted(row) for row in encoder.encode(column).to_pylist()] == [[3, 4], [MISSING], [MISSING], [MISSING]]


def test_a_map_is_its_entries() -> None:
    column = pa.array([[("x", 9)], [("color", 7), ("size", None)], None], pa.map_(pa.string(), pa.int64())).slice(1)
    encoder = fit("tags", Feature(kind="multi"), column)
    assert encoder.values is not None
    assert encoder.values.to_pylist() == ["color=7", "size="]
    assert encoder.encode(column).to_pylist() == [[3, 4], [MISSING]]


def test_messages_lead_out_and_not_in_a_circle() -> None:
    objects = pa.array([{"a": 1, "b": 2}])
    for kind in ("categorical", "multi", "numeric", "bucket"):
        feature = Feature.model_validate({"kind": kind, "separator": "|"})
        with pytest.raises(
            UserError, match=r"feature 'f': holds objects of a, b; take one of its values, such as f\.a"
        ):
            fit("f", feature, objects)
        with pytest.raises(UserError, match=r"feature 'f': holds objects of a, b; write the values as a list"):
            fit("f", feature, pa.array([[{"a": 1, "b": 2}]]))
    for column in (*NESTED, pa.array([[("x", 1)]], pa.map_(pa.string(), pa.int64()))):
        for kind in ("categorical", "numeric"):
            with pytest.raises(UserError, match="set kind: multi"):
                fit("f", Feature.model_validate({"kind": kind}), column)
        fit("f", Feature(kind="multi"), column)


ANY = [
    pa.array([True, None]), pa.array([1.5, None], pa.float16()), pa.array([Decimal("1.5"), None]),
    pa.array([b"x", None]),
    pa.array([dt.date(2024, 1, 1), None]), pa.array([dt.time(1), None]), pa.array([dt.timedelta(1), None]),
    pa.array([dt.datetime(2024, 1, 1), None], pa.timestamp("ns", "UTC")), pa.array([None, None]), pa.array([[], None]),
    pa.array([{}, None]), pa.array(["a", None]).dictionary_encode(), pa.array(["a", None], pa.string_view()),
    pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), pa.array([bytes(16), None], pa.uuid()),
    pa.array([["a"], None], pa.large_list(pa.dictionary(pa.int8(), pa.string()))), pa.array([[1], None]),
    pa.array([[b"x"], None], pa.list_(pa.binary())), pa.array([[dt.date(2024, 1, 1)], None]),
    pa.array([7, None], pa.uint8()),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["categorical", "multi", "numeric", "bucket"])
@pytest.mark.parametrize("column", ANY, ids=[str(each.type) for each in ANY])
def test_a_column_of_any_type_is_taken_or_refused_in_one_line(column: pa.Array, kind: str) -> None:
    for values in (column, column.slice(1), column.slice(0, 0)):
        refusal = ""
        try:
            encoder = fit("f", Feature.model_validate({"kind": kind, "separator": "|"}), values)
            assert len(encoder.encode(values)) == len(values)
            encoder.table()
        except UserError as error:
            refusal = str(error)
        assert not refusal or refusal.startswith("feature 'f'")
        assert len(refusal.splitlines()) <= 1


# An id on several rows

TITLES = [("a", "old", "2024-01-01"), ("b", "only", None), ("a", "new", "2024-02-01"), ("a", "middle", "2024-01-15")]


@pytest.mark.parametrize(("duplicates", "title"), [("first", "old"), ("last", "middle"), ("newest", "new")])
@pytest.mark.parametrize("at_once", [1, 2**20])
def test_one_row_of_an_id_counts(
    duplicates: str, title: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.log.sources.ROWS_AT_ONCE", at_once)
    monkeypatch.setattr("pipelines.log.formats.BLOCK_ROWS", 1)
    ids, titles, times = zip(*TITLES, (None, "none", "2025-01-01"), strict=True)
    path = table(tmp_path / "log.parquet", id=ids, title=titles, time=times)
    time = {"time": "time"} if duplicates == "newest" else {}
    found = rows(path, show=["title"], duplicates=duplicates, **time)
    assert dict(zip(found.ids.to_pylist(), found.columns["title"].to_pylist(), strict=True)) == {
        "a": title,
        "b": "only",
    }
    assert found.notes([]) == [(f"Rows of {path} that are not the {duplicates} of their id", 2, "")]


@pytest.mark.parametrize(("duplicates", "title"), [("first", "new"), ("last", "old"), ("newest", "new")])
@pytest.mark.parametrize("at_once", [1, 2**20])
def test_a_row_that_says_nothing_never_takes_the_place_of_one_that_does(
    duplicates: str, title: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.log.sources.ROWS_AT_ONCE", at_once)
    monkeypatch.setattr("pipelines.log.formats.BLOCK_ROWS", 1)
    titles = [None, "new", "old", None, None]
    path = table(tmp_path / "log.parquet", id=[*"aaaab"], title=titles, time=[f"2024-01-0{n}" for n in (1, 5, 3, 9, 1)])
    time = {"time": "time"} if duplicates == "newest" else {}
    found = rows(path, show=["title"], duplicates=duplicates, **time)
    assert dict(zip(found.ids.to_pylist(), found.columns["title"].to_pylist(), strict=True)) == {"a": title, "b": None}


@pytest.mark.parametrize(
    ("settings", "titles", "left"),
    [
        ({"show": ["title"]}, ["Lamp", "NULL"], "Lamp"),
        ({"show": ["title"]}, ["Lamp", " "], "Lamp"),
        ({"show": ["title"], "null_values": ["-"]}, ["Lamp", "-"], "Lamp"),
        ({"features": {"title": {"null_values": ["?"]}}}, ["Lamp", "?"], "Lamp"),
        ({"features": {"title": {"null_values": [999]}}}, ["7", "999"], 7),
        ({"show": ["title"]}, ["NULL", "NA"], "NA"),  # there is no other
    ],
)
@pytest.mark.parametrize("at_once", [1, 2**20])
def test_a_row_of_words_for_nothing_says_nothing(
    settings: dict[str, Any],
    titles: list[str],
    left: Any,
    at_once: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.log.sources.ROWS_AT_ONCE", at_once)
    path = tmp_path / "items.csv"
    path.write_text("\n".join(["id,title", *(f"a,{title}" for title in titles)]) + "\n")
    assert rows(str(path), duplicates="last", **settings).columns["title"].to_pylist() == [left]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_not_a_number_says_nothing(kind: pa.DataType, tmp_path: Path) -> None:
    path = table(tmp_path / "items.parquet", id=["a", "a"], price=pa.array([2.5, float("nan")], kind))
    found = rows(path, duplicates="last", features={"price": {"kind": "numeric"}})
    assert found.columns["price"].to_pylist() == [2.5]


NOTHING: list[tuple[pa.DataType, list[Any]]] = [
    (pa.list_(pa.string()), [["a"], []]),
    (pa.list_(pa.string()), [["a"], [None, ""]]),
    (pa.large_list(pa.string()), [["a"], [" "]]),
    (pa.list_(pa.float64()), [[1.0], [float("nan")]]),
    (pa.list_(pa.list_(pa.int64())), [[[1]], [[], None]]),
    (pa.list_(pa.int64(), 2), [[1, None], [None, None]]),
    (pa.list_view(pa.string()), [["a"], []]),
    (pa.map_(pa.string(), pa.int64()), [[("a", 1)], []]),
    (pa.struct([("a", pa.list_(pa.int64()))]), [{"a": [1]}, {"a": []}]),
    (pa.struct([("a", pa.string())]), [{"a": "x"}, None]),
]


@pytest.mark.parametrize(("kind", "values"), NOTHING, ids=[str(kind) for kind, _ in NOTHING])
@pytest.mark.parametrize("turned", [False, True])
def test_a_list_without_a_value_says_nothing(kind: pa.DataType, values: list[Any], turned: bool) -> None:
    from pipelines.dataset.one_row import OneRow

    held = pa.array(values[::-1] if turned else values, kind)
    source = FeatureTable(path="p", id="id", duplicates="first" if turned else "last", show=["tags"])
    (left,) = OneRow(source)(pa.table({"id": ["a", "a"], "tags": held}))["tags"].to_pylist()
    assert left == values[0]


def test_a_separator_alone_says_nothing(tmp_path: Path) -> None:
    path = table(tmp_path / "items.parquet", id=["a", "a"], tags=["x|y", " | "])
    found = rows(path, duplicates="last", features={"tags": {"kind": "multi", "separator": "|"}})
    assert found.columns["tags"].to_pylist() == ["x|y"]


@given(st.lists(st.none() | st.lists(st.sampled_from([None, "", " ", "a", "b"]), max_size=3), min_size=1, max_size=8))
def test_the_last_list_with_a_value_counts(lists: list[list[str | None] | None]) -> None:
    from pipelines.dataset.one_row import OneRow

    source = FeatureTable(path="p", id="id", duplicates="last", show=["tags"])
    block = pa.table({"id": ["a"] * len(lists), "tags": pa.array(lists, pa.list_(pa.string()))})
    said = [each for each in lists if each and any(value and value.strip() for value in each)]
    assert OneRow(source)(block)["tags"].to_pylist() == [(said or lists)[-1]]


@given(st.permutations(range(6)))
def test_the_newest_row_is_the_same_in_any_order_of_rows(order: list[int]) -> None:
    from pipelines.dataset.one_row import OneRow

    source = FeatureTable(path="p", id="id", duplicates="newest", time="time")
    columns = {"id": [1, 1, 1, 2, 2, 2], "title": ["a", "b", None, "x", "y", "z"], "time": [3, 3, 3, 1, 2, 2]}
    shuffled = pa.table(columns).take(pa.array(order))
    found = OneRow(source)(shuffled).sort_by("id").to_pylist()
    assert found == [{"id": 1, "title": "b", "time": 3}, {"id": 2, "title": "z", "time": 2}]


def test_an_id_on_several_rows_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = table(tmp_path / "items.parquet", id=["a", "a", "b"])
    with pytest.raises(
        UserError, match=r"1 values of 'id' stand on several rows, e.g. 'a'; .* set duplicates: first, last or"
    ):
        rows(path)
    with pytest.raises(ValueError, match="duplicates: newest needs time"):
        rows(path, duplicates="newest")


def test_ids_that_pandas_made_floats_are_the_log_s_integers(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,x\n13085.0,a\n7,b\n")
    found = rows(str(tmp_path / "items.csv"), features={"x": {}})
    assert found.ids.to_pylist() == [13085, 7]
    assert found.aligned(pa.int64(), "", False) is found
    other = found.nothing_in_common("a user of log", pa.array(["u1"]))
    assert "no value of 'id' (int64 such as 13085) is a user of log (string such as 'u1')" in str(other)

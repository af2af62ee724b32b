import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.schema import EventSource
from pipelines.dataset.sorted_events import SortedEvents, item_counts, settle, sort_events
from pipelines.errors import UserError
from pipelines.log.normalise import normalise
from pipelines.log.times import EpochUnit, parse_times, time_unit

DAY_US = 86_400_000_000


def source(**fields: object) -> EventSource:
    return EventSource.model_validate({"path": "log", **fields})


def test_instants_of_every_kind_become_utc_microseconds() -> None:
    when = dt.datetime(1970, 1, 2)
    zoned = pa.array(
        [dt.datetime(1970, 1, 2, 2, tzinfo=dt.timezone(dt.timedelta(hours=2)))], pa.timestamp("s", "+02:00")
    )
    for column in (
        pa.array([when], pa.timestamp("ns")),
        pa.array([when], pa.timestamp("s")),
        zoned,
        pa.array([when.date()]),
        pa.array(["1970-01-02"]),
        pa.array(["1970-01-02T00:00:00Z"]),
        pa.array(["1970-01-02 02:00:00+02:00"]),
    ):
        assert time_unit(column, "") == "us"
        assert parse_times(column, "us", "").to_pylist() == [DAY_US]


def test_numbers_stay_numbers() -> None:
    for column in (
        pa.array([7, None]),
        pa.array([7.9, float("nan")]),
        pa.array(["7.9", "seven"]),
        pa.array([" 7", None]),
    ):
        assert time_unit(column, "") == "number"
        assert parse_times(column, "number", "").to_pylist() == [7, None]


def test_bad_times_are_null_and_the_rest_stands() -> None:
    column = pa.array(["1970-01-02", "yesterday", "1970-02-30", "", None, "9999-12-31"])
    parsed = parse_times(column, "us", "").to_pylist()
    assert parsed[:5] == [DAY_US, None, None, None, None]
    assert parsed[5] == 253402214400 * 1_000_000


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_epoch_numbers_become_microseconds(unit: EpochUnit, per_second: int) -> None:
    second, expected = 1_700_000_000, 1_700_000_000 * 10**6
    number = second * per_second
    for column in (
        pa.array([number, None]),
        pa.array([number, None], pa.uint64()),
        pa.array([float(number), float("nan")]),
        pa.array([Decimal(number), None], pa.decimal128(38, 0)),
        pa.array([f" {number} ", None]),
        pa.array([f"+{number}.0", "soon"]),
        pa.array(["2023-11-14T22:13:20Z", None]),  # says itself what it is
        pa.array([dt.datetime(2023, 11, 14, 22, 13, 20), None]),
    ):
        assert parse_times(column, "us", "", unit).to_pylist() == [expected, None], column


def test_fractions_of_epoch_numbers_are_kept_to_the_microsecond() -> None:
    for column in (
        pa.array([1_700_000_000.123456, -1.25]),
        pa.array(["1700000000.123456", "-1.25"]),
        pa.array([Decimal("1700000000.123456"), Decimal("-1.250000")]),
    ):
        assert parse_times(column, "us", "", "s").to_pylist() == [1_700_000_000_123_456, -1_250_000]
    assert parse_times(pa.array(["7.", "-0.5"]), "us", "", "ms").to_pylist() == [7000, -500]
    assert parse_times(pa.array([1_999, -1]), "us", "", "ns").to_pylist() == [1, -1]


def test_times_beyond_int64_microseconds_are_null() -> None:
    last = 2**63 - 1
    for column in (
        pa.array([1, last, -last - 1]),
        pa.array([1, last, 2**64 - 1], pa.uint64()),
        pa.array([1, 1e300, float("-inf")]),
        pa.array(["1", str(last), "9" * 50]),
        pa.array([Decimal(1), Decimal(10**30), Decimal(last)]),
        pa.array([1, last, -last - 1], pa.timestamp("s")),
    ):
        assert parse_times(column, "us", "", "s").to_pylist() == [10**6, None, None], column
    assert parse_times(pa.array([1, 2**31 - 1], pa.date32()), "us", "").to_pylist() == [DAY_US, None]
    assert parse_times(pa.array([1, 2**64 - 1], pa.uint64()), "number", "").to_pylist() == [1, None]
    assert parse_times(pa.array(["1", str(last), str(last + 1)]), "number", "").to_pylist() == [1, last, None]


@given(st.lists(st.integers(-(2**70), 2**70) | st.none()), st.sampled_from(["s", "ms", "us"]))
def test_epoch_text_equals_integer_arithmetic(numbers: list[int | None], unit: EpochUnit) -> None:
    scale = {"s": 10**6, "ms": 10**3, "us": 1}[unit]
    limit = (2**63 - 1) // scale - 1
    expected = [None if n is None or abs(n) > limit else n * scale for n in numbers]
    text = pa.array([None if n is None else str(n) for n in numbers], pa.string())
    assert parse_times(text, "us", "", unit).to_pylist() == expected


def test_iso_text_of_every_writer_is_read() -> None:
    texts = ["1970-01-02 00:00:00 UTC", "1970-01-02t00:00:00z", " 1970-01-02 ", "1970-01-01T19:00:00-0500",
             "1970-01-02T00:00:00.000000999Z", "9999-12-31", "0001-01-01", "1700000000"]  # fmt: skip
    parsed = parse_times(pa.array(texts), "us", "").to_pylist()
    assert parsed == [*[DAY_US] * 5, 253402214400 * 10**6, -62135596800 * 10**6, None]


def test_another_kind_of_time_than_the_log_began_with_is_an_error() -> None:
    for column, unit, message in (
        (pa.array([1]), "us", "1.parquet: time: holds numbers, but the log began with instants; set time_unit"),
        (pa.array([1], pa.timestamp("s")), "number", "1.parquet: time: holds timestamps, but"),
        (pa.array([[1]]), "number", "1.parquet: time: holds list"),
    ):
        with pytest.raises(UserError, match=message):
            parse_times(column, unit, "1.parquet: time")


def test_a_log_in_epoch_seconds_is_cleaned_into_instants() -> None:
    block = pa.table({"user": [1, 2, 3], "item": [1, 1, 1], "time": ["1.5", "x", "1970-01-02"]})
    found = normalise(block, source(time_unit="s"), "us", "log")
    assert found.events["time"].to_pylist() == [1_500_000, DAY_US]
    assert found.set_aside == {"time cannot be parsed": 1}


def test_every_row_is_kept_or_has_one_reason() -> None:
    block = pa.table(
        {
            "user": pa.array([1, None, None, 4, 5, 6, 7, 8]),
            "item": pa.array(["a", "b", None, "", "e", "f", "g", "h"]),
            "time": pa.array(["1", "2", "3", "4", None, "x", "7", "8"]),
            "kind": pa.array(["view", "view", "view", "view", "view", "view", "click", "view"]),
            "quantity": pa.array([1, 1, 1, 1, 1, 1, 1, -1]),
        }
    )
    rule = {"column": "quantity", "below": 0, "reason": "returned"}
    found = normalise(block, source(event_type="kind", keep_types=["view"], exclude=[rule]), "number", "log")
    assert found.events.to_pydict() == {"user": [1], "item": ["a"], "time": [1], "type": ["view"]}
    assert found.set_aside == {
        "missing user": 2,
        "missing item": 1,
        "missing time": 1,
        "time cannot be parsed": 1,
        "returned": 1,
        "other event type": 1,
    }
    # and those that are no good can be looked at, as they were
    rows = found.quarantine.to_pylist()
    assert [row["reason"] for row in rows] == [*["missing user"] * 2, "missing item", "missing time",
                                               "time cannot be parsed", "returned"]  # fmt: skip
    assert rows[4] == {"reason": "time cannot be parsed", "user": "6", "item": "f", "time": "x", "kind": "view",
                       "quantity": "1"}  # fmt: skip


def test_exclusions_by_prefix_value_and_bound() -> None:
    block = pa.table({"user": [1, 2, 3, 4], "item": [1, 1, 1, 1], "time": [1, 2, 3, 4], "n": ["C1", "7", "-2", None]})
    rules = [
        {"column": "n", "prefix": "C", "reason": "cancelled"},
        {"column": "n", "values": [7], "reason": "seven"},
        {"column": "n", "below": 0, "reason": "negative"},
    ]
    found = normalise(block, source(exclude=rules), "number", "log")
    assert found.set_aside == {"cancelled": 1, "seven": 1, "negative": 1}
    assert found.events["user"].to_pylist() == [4]


def test_wrong_types_name_the_file_and_the_column() -> None:
    good = {"user": [1], "item": [1], "time": [1]}
    for column, values in (("user", [1.5]), ("item", [[1]]), ("time", [True])):
        with pytest.raises(UserError, match=f"log: {column} column '{column}'"):
            normalise(pa.table({**good, column: values}), source(), "number", "log")


def histories(rows: list[tuple[str, str, int]]) -> SortedEvents:
    user, item, time = zip(*rows, strict=True)
    return sort_events(pa.table({"user": user, "item": item, "time": time}), drop_duplicates=True)[0]


def listed(histories: SortedEvents) -> list[tuple[object, object, int]]:
    users, items = histories.users.to_pylist(), histories.items.to_pylist()
    return [
        (users[u], items[i], int(t)) for u, i, t in zip(histories.user, histories.item, histories.time, strict=True)
    ]


def test_events_are_sorted_by_user_time_tie_and_item() -> None:
    table = pa.table(
        {"user": ["b", "a", "a", "a", "a"], "item": [1, 9, 2, 1, 1], "time": [0, 5, 5, 5, 1], "tie": [0, 0, 1, 1, 9]}
    )
    result, dropped = sort_events(table, drop_duplicates=True)
    assert listed(result) == [("a", 1, 1), ("a", 9, 5), ("a", 1, 5), ("a", 2, 5), ("b", 1, 0)]
    assert dropped == 0


def test_duplicates_differ_in_no_column() -> None:
    table = pa.table({"user": [1, 1, 1], "item": [2, 2, 2], "time": [3, 3, 3], "type": ["x", "x", "y"]})
    assert len(sort_events(table, drop_duplicates=True)[0].item) == 2
    assert len(sort_events(table, drop_duplicates=False)[0].item) == 3


def test_a_run_of_one_item_collapses_even_over_a_rare_one() -> None:
    log = histories([("u", "a", 1), ("u", "rare", 2), ("u", "a", 3), ("u", "b", 4), ("v", "b", 5)])
    rare = np.array(log.items.to_pylist()) == "rare"
    left, reasons = settle(log, rare, min_user_events=2, collapse=True)
    assert listed(left) == [("u", "a", 1), ("u", "b", 4)]
    assert reasons == {
        "item below min_item_events": 1,
        "repeat of the item before": 1,
        "user below min_user_events": 1,
    }
    assert item_counts(left).to_pydict() == {"id": ["a", "b"], "count": [1, 1]}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 3))), st.booleans(), st.integers(1, 3))
def test_settling_loses_no_row_and_equals_a_plain_loop(
    rows: list[tuple[int, int, int]], collapse: bool, minimum: int
) -> None:
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    table = pa.table(dict(zip(("user", "item", "time"), columns, strict=True)))
    log, dropped = sort_events(table, drop_duplicates=True)
    left, reasons = settle(log, np.array(log.items.to_pylist()) == 0, minimum, collapse)
    expected: list[tuple[int, int, int]] = []
    distinct = sorted({(user, time, item) for user, item, time in rows})
    for user in range(4):
        own: list[tuple[int, int, int]] = []
        for _, time, item in (row for row in distinct if row[0] == user and row[2] != 0):
            if not (collapse and own and own[-1][1] == item):
                own.append((user, item, time))
        expected += own if len(own) >= minimum else []
    assert listed(left) == expected
    assert len(rows) == dropped + len(expected) + reasons.total()

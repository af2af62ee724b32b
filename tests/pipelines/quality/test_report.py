"""The data quality report: exact counts, leaks, drift, and the page."""

import json
import re
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.schema import Feature, Split
from pipelines.dataset.column_summary import summary_of
from pipelines.dataset.dataset import SCHEMA_VERSION, Layout, Manifest, SplitCounts
from pipelines.dataset.sorted_events import SortedEvents
from pipelines.dataset.splits import Stretches, split_users
from pipelines.log.times import TimeUnit
from pipelines.quality.drift import drift, psi
from pipelines.quality.page import page
from pipelines.quality.part_stats import HEAVIEST, MAX_TIME_BINS, Stats, merge_stats, part_stats, without
from pipelines.quality.report import Quality, assemble, popularity, quantiles, unknown_test_items
from pipelines.quality.svg_plots import Series, bars
from pipelines.quality.write import write_quality

DAY = 86_400_000_000
TEMPORAL = Split.model_validate({"protocol": "temporal", "validation_from": "1970-01-05", "test_from": "1970-01-08"})
CUTOFFS = (4 * DAY, 7 * DAY)
SPLITS = {
    "leave_one_out": (Split(protocol="leave_one_out"), None),
    "user_holdout": (Split(protocol="user_holdout", held_out=0.3), None),
    "temporal": (TEMPORAL, CUTOFFS),
}


def histories(*users: list[tuple[int, int]]) -> SortedEvents:
    """Each user's (item, time), sorted here as `sort_events` does."""
    rows = [(user, time, item) for user, events in enumerate(users) for item, time in events]
    user, time, item = np.array(sorted(rows), np.int64).reshape(-1, 3).T
    ids = pa.array(np.arange(len(users)))
    return SortedEvents(ids, pa.array(np.arange(50)), user.astype(np.int32), item.astype(np.int32), time)


def cut(events: SortedEvents, protocol: str) -> dict[str, Stretches]:
    split, cutoffs = SPLITS[protocol]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(events.user, minlength=len(events.users)))])
    return split_users(split, events.users, offsets, events.time, cutoffs)


def stats_of(events: SortedEvents, protocol: str, unit: TimeUnit = "us") -> Stats:
    return part_stats(events, cut(events, protocol), unit)


def manifest(events: int, protocol: str = "leave_one_out", **changes: Any) -> Manifest:
    made = Manifest(
        schema_version=SCHEMA_VERSION, name="tiny",
        config={"events": {"tie_break": None, "user": "u", "item": "i", "time": "t"}, "split": {"protocol": protocol}},
        rows_read=events, set_aside={}, events=events, users=2, items=3,
        splits={name: SplitCounts(2, 3, 2, 0) for name in ("train", "validation", "test")},
        item_features=(), profile_features=(), time_unit="us", fingerprint="f" * 64,
    )  # fmt: skip
    return replace(made, **changes)


def report(
    events: SortedEvents, protocol: str = "leave_one_out", previous: dict[str, Any] | None = None, **changes: Any
) -> Quality:
    count = np.bincount(events.item, minlength=3)
    unknown = {"items": 1, "targets": 1, "unknown_items": 0, "unknown_targets": 0}
    made = manifest(len(events.item), protocol, **changes)
    return assemble(made, merge_stats([stats_of(events, protocol)]), count, unknown, previous)


TWO = histories([(0, 0), (1, 0), (0, DAY), (2, 3 * DAY)], [(1, DAY), (0, 2 * DAY), (2, 9 * DAY)])


def test_counts_are_those_made_by_hand() -> None:
    stats = stats_of(TWO, "leave_one_out")
    assert stats["lengths"] == {"users": 2, "events": 7, "max": 4, "histogram": [[3, 1], [4, 1]]}
    assert stats["gaps"]["same_time"] == 1
    assert stats["gaps"]["histogram"] == [[1, 1], [17, 2], [18, 1], [20, 1]]  # none, 2 of 1 day, of 2, of 7
    assert (stats["time"]["first"], stats["time"]["last"], stats["time"]["level"]) == (0, 9 * DAY, 0)
    assert [row[0] for row in stats["time"]["bins"]] == [72 + 24 * day for day in (0, 1, 2, 3, 9)]  # hours
    assert [row[1:] for row in stats["time"]["bins"]] == [
        [2, 2, 0, 0, 1], [2, 1, 1, 0, 1], [1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 1, 0],
    ]  # fmt: skip
    assert not any(stats["leaks"].values())
    assert stats["split"] == {
        "train_last": DAY, "test_first": 3 * DAY, "test_users": 2, "unknown_users": 0, "tied_users": 0,
        "test_targets": 2, "seen_targets": 0,
    }  # fmt: skip


@pytest.mark.parametrize("protocol", SPLITS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_numbers_do_not_depend_on_how_users_are_cut_into_parts(protocol: str, data: st.DataObject) -> None:
    span = data.draw(st.sampled_from([DAY, 20 * DAY, 3000 * DAY, 400_000 * DAY]))
    event = st.tuples(st.integers(0, 5), st.integers(-span, span))
    users = data.draw(st.lists(st.lists(event, min_size=1, max_size=40), min_size=2, max_size=8))
    place = data.draw(st.integers(1, len(users) - 1))
    unit: TimeUnit = data.draw(st.sampled_from(["us", "number"]))
    whole = histories(*users)
    cuts = cut(whole, protocol)
    parts = []
    for first, stop in ((0, place), (place, len(users))):
        rows = np.searchsorted(whole.user, [first, stop])
        piece = SortedEvents(
            whole.users[first:stop], whole.items, whole.user[slice(*rows)] - np.int32(first),
            whole.item[slice(*rows)], whole.time[slice(*rows)],
        )  # fmt: skip
        parts.append(stats_of(piece, protocol, unit))
    merged = merge_stats(json.loads(json.dumps(parts)))
    assert merged == merge_stats([part_stats(whole, cuts, unit)]) == part_stats(whole, cuts, unit)
    bins = [row[0] for row in merged["time"]["bins"]]
    assert max(bins) - min(bins) < MAX_TIME_BINS
    assert sum(row[1] for row in merged["time"]["bins"]) == len(whole.item)
    for split, column in (("validation", 3), ("test", 4)):
        wanted = cuts[split].target_stop - cuts[split].target_start
        assert sum(row[column] for row in merged["time"]["bins"]) == wanted.sum()
    assert sum(row[2] for row in merged["time"]["bins"]) == (cuts["train"].stop - cuts["train"].start).sum()
    assert not any(merged["leaks"].values()), "no protocol breaks a rule"
    seen = sum(
        whole.item[event] in whole.item[start:stop]
        for start, stop, first, last in zip(
            cuts["test"].start, cuts["test"].stop, cuts["test"].target_start, cuts["test"].target_stop, strict=True
        )
        for event in range(first, last)
    )
    assert merged["split"]["seen_targets"] == seen


def test_a_part_without_users_changes_nothing() -> None:
    empty = stats_of(histories(), "leave_one_out")
    stats = stats_of(TWO, "leave_one_out")
    assert merge_stats([empty, stats, empty]) == stats
    assert empty["time"]["bins"] == []


def test_lengths_above_31_are_kept_to_a_sixteenth() -> None:
    stats = stats_of(histories(*[[(0, n) for n in range(length)] for length in (31, 32, 33, 34, 1000)]), "temporal")
    assert stats["lengths"]["histogram"] == [[31, 1], [32, 2], [34, 1], [992, 1]]
    assert stats["lengths"]["events"] == 31 + 32 + 33 + 34 + 1000


@pytest.mark.parametrize(
    ("split", "field", "values", "rule"),
    [
        ("train", "stop", [4, 7], "test targets in the train history"),
        ("validation", "target_stop", [4, 7], "validation targets that are test targets"),
        ("test", "stop", [4, 7], "test targets in the test history"),
        ("test", "start", [0, 3], "rows with events of another user"),
        ("test", "target_start", [0, 4], "test history later than its targets"),
    ],
)
def test_a_planted_leak_is_an_alarm(split: str, field: str, values: list[int], rule: str) -> None:
    stretches = cut(TWO, "leave_one_out")
    stretches[split] = replace(stretches[split], **{field: np.array(values)})
    stats = part_stats(TWO, stretches, "us")
    assert stats["leaks"][rule]
    quality = assemble(manifest(7), stats, np.ones(3, np.int64), unknown_test_items(np.ones(3), np.ones(3)))
    assert f"No {rule}" in [check.name for check in quality.warnings if check.level == "alarm"]
    assert 'class="badge alarm"' in page(quality)


def test_events_out_of_their_order_are_an_alarm() -> None:
    stats = stats_of(replace(TWO, time=TWO.time[::-1].copy()), "user_holdout")
    assert stats["leaks"]["events out of their order"]


def test_train_after_the_first_test_target_is_the_protocols_property_or_an_alarm() -> None:
    late = histories([(0, 0), (1, DAY), (2, 2 * DAY)], [(0, 5 * DAY), (1, 6 * DAY), (2, 7 * DAY)])
    name = "Train events later than the earliest test target"
    found = {check.name: check for check in report(late).leakage}[name]
    assert (found.level, found.value) == ("info", 0.5)  # one of the two train events
    assert "property of leave_one_out" in found.note
    stats = stats_of(late, "leave_one_out")
    wrong = assemble(manifest(6, "temporal"), stats, np.ones(3, np.int64), unknown_test_items(np.ones(3), np.ones(3)))
    assert {check.name: check for check in wrong.leakage}[name].level == "alarm"
    temporal = {check.name: check for check in report(late, "temporal").leakage}[name]
    assert (temporal.level, temporal.found) == ("ok", "none")


def test_unknown_test_items_are_those_without_a_train_event() -> None:
    found = unknown_test_items(np.array([5, 0, 0, 2]), np.array([1, 3, 0, 4]))
    assert found == {"items": 3, "targets": 8, "unknown_items": 1, "unknown_targets": 3}


def test_popularity_of_a_hand_made_table() -> None:
    found = popularity(np.array([6, 2, 0, 0]))
    assert (found["cold"], found["mean"], found["max"], found["gini"]) == (2, 2.0, 6, 0.625)
    assert found["histogram"] == [[-1, 2], [1, 1], [2, 1]]
    assert found["top_10_percent"] == 0.75
    assert found["lorenz"][0] == [0.0, 0.0]
    assert found["lorenz"][-1] == [1.0, 1.0]
    assert popularity(np.full(10, 3))["gini"] == pytest.approx(0)
    assert popularity(np.zeros(0, np.int64))["gini"] == 0


def test_quantiles_are_exact_for_small_numbers() -> None:
    found = quantiles([[1, 50], [2, 25], [10, 25]])
    assert (found["p50"], found["p75"], found["p90"]) == (1, 2, 10)


def test_the_same_version_again_does_not_drift() -> None:
    first = asdict(report(TWO))
    checks = drift(first, first)
    assert checks is not None
    assert {check.level for check in checks} == {"ok"}
    assert drift(None, first) is None


def test_drift_flags_what_was_planted() -> None:
    before = asdict(report(TWO, rows_read=10, set_aside={"missing user": 3}))
    longer = histories(*[[(item % 3, n * DAY) for n, item in enumerate(range(30))] for _ in range(6)])
    after = report(
        longer, previous=before, rows_read=1800, set_aside={"missing user": 1620}, users=2,
        config={"events": {"tie_break": None}, "split": {"protocol": "leave_one_out"}, "min_user_events": 3},
    )  # fmt: skip
    assert after.drift is not None
    levels = {check.name: check.level for check in after.drift}
    assert levels["Events"] == levels["Set aside: missing user"] == levels["Distribution of events per user"] == "alarm"
    assert levels["Users"] == "ok"
    assert levels["Settings"] == "watch"
    assert levels["Newest event"] == "ok"
    back = drift(asdict(after), before)
    assert back is not None
    assert {check.name: check.level for check in back}["Newest event"] == "watch"


def test_psi_is_that_of_the_formula_and_finite_for_empty_bins() -> None:
    assert psi([[1, 50], [2, 50]], [[1, 75], [2, 25]]) == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5))
    assert psi([[1, 10]], [[2, 10]]) < 20
    assert psi([], [[2, 10]]) == 0


def test_json_comes_back_the_same_and_holds_no_nan() -> None:
    first = report(TWO)
    second = report(TWO, previous=json.loads(first.to_json()))
    for quality in (first, second):
        assert Quality.from_dict(json.loads(quality.to_json())) == quality
        assert "NaN" not in quality.to_json()
        assert "Infinity" not in quality.to_json()
    nothing = assemble(
        manifest(0), stats_of(histories(), "temporal"), np.zeros(0, np.int64), unknown_test_items(*np.zeros((2, 0)))
    )
    assert Quality.from_dict(json.loads(nothing.to_json())) == nothing
    assert "<svg" in page(nothing)


def test_the_page_escapes_what_comes_from_data_and_needs_no_other_file() -> None:
    evil = "<script>alert('x')</script> & \"more\""
    html = page(report(TWO, name=evil, rows_read=8, set_aside={evil: 1}, previous=asdict(report(TWO))))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 3  # title, heading, reason
    assert not re.search(r"(?:src|href)\s*=|url\(|@import", html)
    assert "NaN" not in html
    assert "<b>" not in bars([Series("<b>", "s1", [1])], ["<b>"], [(0, "<b>")], "<b>")


@pytest.mark.parametrize("unit", ["us", "number"])
@pytest.mark.parametrize("last", [0, DAY, 10_000 * DAY, 2**62])
def test_the_page_is_made_for_any_range_of_times(unit: TimeUnit, last: int) -> None:
    events = histories([(0, -3), (1, 0), (2, last)])
    quality = assemble(manifest(3), stats_of(events, "leave_one_out", unit), np.ones(3, np.int64),
                       unknown_test_items(np.ones(3), np.ones(3)))  # fmt: skip
    assert "Events per" in page(quality)


def test_the_report_is_written_and_compared_with_the_one_before(tmp_path: Path) -> None:
    stats, unknown = stats_of(TWO, "leave_one_out"), np.array([0, 0, 1])
    folders = [Layout(tmp_path / name) for name in ("old", "new", "newest")]
    for layout in folders:
        layout.create()
        pq.write_table(pa.table({"id": [7, 8, 9], "count": [3, 2, 2], "train_count": [2, 2, 0]}), layout.items)
    first = write_quality(folders[0], manifest(7), stats, unknown, tmp_path / "none")
    second = write_quality(folders[1], manifest(7), stats, unknown, folders[0].root)
    assert first.drift is None
    assert second.drift is not None
    assert Quality.read(folders[1]) == second
    assert "tiny" in folders[1].quality_page.read_text(encoding="utf-8")
    folders[1].quality.write_text("{", encoding="utf-8")
    assert write_quality(folders[2], manifest(7), stats, unknown, folders[1].root).drift is None
    assert all(np.isfinite(value) for value in second.metrics().values())


def test_times_at_the_ends_of_their_type_are_far_apart_not_equal() -> None:
    histories = SortedEvents(
        pa.array([1]),
        pa.array([7]),
        np.zeros(3, np.int32),
        np.zeros(3, np.int32),
        np.array([-(2**63), -(2**63), 2**63 - 1]),
    )
    stretches = split_users(Split(), histories.users, np.array([0, 3]), histories.time, None)
    stats = part_stats(histories, stretches, "number")
    assert stats["gaps"]["same_time"] == 1
    assert stats["leaks"]["events out of their order"] == 0


def test_users_are_taken_out_again() -> None:
    one, two = (
        stats_of(histories([(3, 0), (0, 4 * DAY), (3, 5 * DAY)]), "leave_one_out"),
        stats_of(TWO, "leave_one_out"),
    )
    left = merge_stats([merge_stats([one, two]), without(one)])
    for name in ("gaps", "leaks"):
        assert left[name] == two[name]
    assert left["lengths"]["histogram"] == two["lengths"]["histogram"]
    assert left["split"]["test_targets"] == two["split"]["test_targets"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 12), max_size=60), st.integers(1, 5))
def test_the_heaviest_users_are_the_same_however_the_users_are_cut(lengths: list[int], parts: int) -> None:
    def of(users: list[int]) -> Stats:
        events = np.repeat(np.arange(len(users)), [lengths[user] for user in users]).astype(np.int32)
        ids = pa.array(users, pa.int64())
        made = SortedEvents(ids, pa.array([0]), events, np.zeros(len(events), np.int32), np.arange(len(events)))
        return stats_of(made, "leave_one_out", "number")

    everyone = list(range(len(lengths)))
    ranked = sorted(([str(user), lengths[user]] for user in everyone), key=lambda pair: (-pair[1], pair[0]))
    assert merge_stats([of(everyone[n::parts]) for n in range(parts)])["heaviest"] == ranked[:HEAVIEST]
    grown = merge_stats([of(everyone), without(of(everyone[:3])), of(everyone[:3])])
    assert grown["heaviest"] == ranked[:HEAVIEST]


def test_columns_users_and_items_by_title_are_on_the_page(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "x")
    layout.create()
    pq.write_table(pa.table({"id": [7, 8, 9], "count": [3, 2, 2], "train_count": [2, 2, 0],
                             "show_title": ["Up", None, "Down"]}), layout.items)  # fmt: skip
    stats = stats_of(TWO, "leave_one_out") | {"types": {"buy": 5, "view": 1}}
    events = {"tie_break": None, "user": "u", "item": "i", "time": "t", "event_type": "kind"}
    config = {"events": events, "items": {"show": ["title"]}, "split": {"protocol": "leave_one_out"}}
    made = manifest(7, config=config, rows_read=9, set_aside={"missing user": 2})
    color = summary_of("items", "color", pa.array(["red", None, "red"]), None)
    quality = write_quality(layout, made, stats, np.zeros(3, np.int64), tmp_path / "none", (), [color])
    assert quality.top_items == [["Up", 3], ["8", 2], ["Down", 2]]
    assert [(each.name, each.missing, each.distinct, each.top) for each in quality.columns] == [
        ("u", 2, 2, tuple((user, n) for user, n in quality.heaviest)),
        ("i", 0, 3, (("Up", 3), ("8", 2), ("Down", 2))),
        ("t", 0, None, ()),
        ("kind", 3, 2, (("buy", 5), ("view", 1))),
        ("color", 1, 1, (("red", 2),)),
    ]
    html = layout.quality_page.read_text("utf-8")
    for said in ("Columns", "Heaviest users", "Most popular items", "22.2%", "red (2)", "Up (3)"):
        assert said in html


def test_a_finding_has_the_same_words_on_the_terminal_and_on_the_page() -> None:
    quality = report(TWO, rows_read=20, set_aside={"missing user": 13})
    assert quality.warnings
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", page(quality))).split())
    for line in quality.lines():
        assert line in text


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        ([1.5, None, 1.5], None, (1, 1, (("1.5", 2),))),
        (["a|b", "", None, "a"], Feature(kind="multi", separator="|"), (2, 2, (("a", 2), ("b", 1)))),
        ([["a"], [], ["a", "b"]], Feature(kind="multi"), (1, 2, (("a", 2), ("b", 1)))),
        ([{"x": 1}, None], None, (1, None, ())),
    ],
)
def test_a_column_is_summarised_whatever_it_holds(values: list[Any], feature: Feature | None, expected: Any) -> None:
    found = summary_of("items", "c", pa.array(values), feature)
    assert (found.missing, found.distinct, found.top) == expected

"""Logs as people have them, through the whole of preprocessing: the table of docs/logs.md. No Ray."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.preprocess.append import append
from pipelines.preprocess.preprocess import preprocess
from pipelines.quality.report import Quality
from tests.pipelines.local_data import local_data

HEADER = "user,item,time\n"


@pytest.fixture(autouse=True, scope="module")
def _here() -> Iterator[None]:
    with local_data():
        yield


def config_of(folder: Path, path: str | Path, events: dict[str, Any] | None = None, **data: Any) -> Config:
    source = {"path": str(folder / path), **(events or {})}
    return Config.model_validate({"name": "odd", "home": str(folder / "home"), "data": {"events": source, **data}})


def made(folder: Path, files: dict[str, Any], events: dict[str, Any] | None = None, **data: Any) -> Dataset:
    """The dataset of these files, text or tables."""
    (folder / "log").mkdir(exist_ok=True)
    for name, content in files.items():
        if isinstance(content, pa.Table):
            pq.write_table(content, folder / "log" / name)
        else:
            (folder / "log" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return preprocess(config_of(folder, "log", events, **data))


def refusal(*arguments: Any, **data: Any) -> str:
    with pytest.raises(UserError) as error:
        made(*arguments, **data)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def ids(dataset: Dataset, name: str = "users") -> list[Any]:
    return sorted(dataset.vocabulary(name)["id"].to_pylist())


def quality(dataset: Dataset) -> Quality:
    found = Quality.read(dataset.layout)
    assert found is not None
    return found


def said(dataset: Dataset) -> str:
    return "\n".join(quality(dataset).lines())


def test_nulls_written_as_text_make_no_giant_user(tmp_path: Path) -> None:
    words = ["\\N", "None", "NA", "<NA>", "N/A", "#N/A", " ", ""]
    lines = "".join(f"{word},a,{n}\n" for n, word in enumerate(words)) + "7,a,9\n"
    dataset = made(tmp_path, {"log.csv": HEADER + lines})
    assert (ids(dataset), dataset.manifest.set_aside) == ([7], {"missing user": 8})


def test_a_lone_quote_costs_one_row_of_402(tmp_path: Path) -> None:
    lines = [f"{n},a,{n}\n" for n in range(402)]
    lines[201] = '"201,a,201\n'
    dataset = made(tmp_path, {"log.csv": HEADER + "".join(lines)})
    assert (dataset.manifest.rows_read, dataset.manifest.events) == (402, 401)
    assert dataset.manifest.set_aside == {"unreadable row": 1}
    (file,) = dataset.layout.quarantine.glob("*.parquet")
    assert pq.read_table(file)["line"].to_pylist() == ['"201,a,201']
    assert made(tmp_path, {"log.csv": HEADER + "".join(lines)}, {"quote": ""}).manifest.events == 402


def test_lines_inside_a_quoted_value_that_look_like_rows_are_on_the_quality_page(tmp_path: Path) -> None:
    dataset = made(tmp_path, {"log.csv": HEADER + '1,"a,5\n2,b,6\n3,12",7\n4,d,8\n'})
    assert "WARN Lines that look like rows, inside quoted values: 1, such as '2,b,6'" in said(dataset)


def test_floats_of_which_several_are_one_are_refused(tmp_path: Path) -> None:
    for kind, bits in ((pa.float32(), 24), (pa.float16(), 11), (pa.float64(), 53)):
        log = pa.table({"user": pa.array([1, 2.0**bits], pa.float64()).cast(kind), "item": [1, 2], "time": [1, 2]})
        name = {16: "halffloat", 32: "float", 64: "double"}[kind.bit_width]
        text = refusal(tmp_path, {"log.parquet": log})
        assert f"user column 'user': holds {2**bits} as {name}, in which ids from {2**bits:,} on are not exact" in text
        log = log.set_column(0, "user", pa.array([1, 2.0**bits - 1], pa.float64()).cast(kind))
        assert ids(made(tmp_path, {"log.parquet": log})) == [1, 2**bits - 1]


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert "column 'user' stands 2 times" in refusal(tmp_path, {"log.csv": "user,item,time,user\n1,a,2,3\n"})
    column = pa.array([1])
    twice = pa.Table.from_arrays([column] * 4, names=["user", "item", "time", "time"])
    (tmp_path / "log" / "log.csv").unlink()
    assert "column 'time' stands 2 times" in refusal(tmp_path, {"log.parquet": twice})


@pytest.mark.parametrize("order", ["123", "321"])
def test_ids_are_of_one_type_over_all_parts(tmp_path: Path, order: str) -> None:
    plain = HEADER + "0,a,1\n7,a,2\n"
    floats = HEADER + "0.0,b,3\n7.0,b,4\n,b,5\n"
    table = pa.table({"user": [0, 7], "item": ["c", "c"], "time": [6, 7]})
    names = dict(zip(order, (plain, floats), strict=False))
    dataset = made(tmp_path, {f"{n}.csv": text for n, text in names.items()} | {f"{order[2]}.parquet": table})
    assert (ids(dataset), dataset.manifest.users) == ([0, 7], 2)
    lines = "".join(json.dumps({"user": f"{u}.0", "item": "d", "time": 8}) + "\n" for u in (0, 7))
    assert ids(made(tmp_path, {"4.jsonl": lines})) == [0, 7]
    dataset = made(tmp_path, {"5.csv": HEADER + "x,a,1\n"})
    assert ids(dataset) == ["0", "0.0", "7", "7.0", "x"], "text, and then each as it stands"


def test_the_fingerprint_is_the_same_however_mixed_types_are_cut(tmp_path: Path) -> None:
    rows = [f"{n % 5}{'.0' if n % 3 else ''},item {n % 4},12/{1 + n % 28}/2010 8:{n:02d},{n / 4}\n" for n in range(60)]
    header, events = "user,item,time,tie\n", {"tie_break": "tie"}
    prints = set()
    for number in (1, 7, 64):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = {f"{cut:02d}.csv": header + "".join(rows[cut::number][::-1]) for cut in range(number)}
        prints.add(made(folder, files, events).manifest.fingerprint)
    assert len(prints) == 1


@pytest.mark.parametrize(("ties", "order"), [(["b", "a", "c"], [2, 1, 3]), ([".5", "0.25", "0.75"], [2, 1, 3]),
                                             (["10", "9", "11.5"], [2, 1, 3])])  # fmt: skip
def test_tie_breaks_of_text_and_fractions_order(tmp_path: Path, ties: list[str], order: list[int]) -> None:
    ties = [tie if tie[0] != "." else f"0{tie}" for tie in ties]
    text = "user,item,time,tie\n" + "".join(f"1,{n},5,{tie}\n" for n, tie in enumerate(ties, 1))
    dataset = made(
        tmp_path, {"log.csv": text}, {"tie_break": "tie"}, split={"protocol": "user_holdout", "held_out": 1e-9}
    )
    item = dict(zip(dataset.items()["item"].to_pylist(), dataset.items()["id"].to_pylist(), strict=True))
    (row,) = dataset.table("train").to_pylist()
    assert [item[n] for n in row["items"]] == order
    (tmp_path / "more.csv").write_text("user,item,time,tie\n2,1,5,0\n")
    config = config_of(tmp_path, "log", {"tie_break": "tie"}, split={"protocol": "user_holdout", "held_out": 1e-9})
    assert append(config, str(tmp_path / "more.csv")).manifest.users == 2


def test_a_tie_break_that_has_no_order_is_refused(tmp_path: Path) -> None:
    log = pa.table({"user": [1], "item": [1], "time": [1], "tie": [True]})
    assert "tie_break column 'tie': values of type bool have no order" in refusal(
        tmp_path, {"log.parquet": log}, {"tie_break": "tie"}
    )


def test_outliers_and_prices_that_are_no_numbers_are_on_the_quality_page(tmp_path: Path) -> None:
    prices = ["1", "2", "3", "4", "5", "$6", "1.7976931348623157e308"]
    (tmp_path / "items.csv").write_text("id,price\n" + "".join(f"{n},{price}\n" for n, price in enumerate(prices)))
    log = HEADER + "".join(f"1,{n},{n}\n" for n in range(7))
    table = {"path": str(tmp_path / "items.csv"), "id": "id", "features": {"price": {"kind": "numeric"}}}
    dataset = made(tmp_path, {"log.csv": log}, items=table)
    assert "WARN Values of 'price' that are no numbers, and count as missing: 1, such as '$6'" in said(dataset)
    assert (
        "WARN Outliers of 'price', taken for -97 or 104; null_values: makes them missing: 1, such as "
        "'1.7976931348623157e+308 (1 times)'"
    ) in said(dataset)
    scaled = dataset.items().sort_by("id")["feature_price"].to_pylist()
    assert scaled[:5] == sorted(set(scaled[:5]))
    assert scaled[5] is None
    (tmp_path / "items.csv").write_text("id,price\n0,$1\n1,$2\n")
    assert "feature 'price': no value is a number, such as '$1'" in refusal(tmp_path, {}, items=table)


def test_an_exclusion_by_number_of_what_is_none_is_refused_or_noted(tmp_path: Path) -> None:
    rule = {"exclude": [{"column": "n", "below": 0, "reason": "back"}]}
    log = "user,item,time,n\n1,a,1,(5)\n2,a,2,\n"
    assert "no value of 'n' is one, such as '(5)'; use prefix or values" in refusal(tmp_path, {"log.csv": log}, rule)
    dataset = made(tmp_path, {"log.csv": log + "3,a,3,-1\n"}, rule)
    assert dataset.manifest.set_aside == {"back": 1}
    assert "WARN Values of 'n' that are no numbers, for exclusion 'back': 1, such as '(5)'" in said(dataset)


def test_a_split_without_users_is_an_alarm_with_the_log_s_own_range(tmp_path: Path) -> None:
    log = HEADER + "".join(f"{u},a,2024-01-0{t}\n" for u in (1, 2) for t in range(1, 9))
    split = {"protocol": "temporal", "validation_from": "2024-01-05", "test_from": "2025-01-01"}
    dataset = made(tmp_path, {"log.csv": log}, split=split)
    assert (
        "ALARM Users of the test split: none: The log runs from 2024-01-01 00:00:00 to 2024-01-08 00:00:00; "
        "validation_from is 2024-01-05, test_from 2025-01-01."
    ) in said(dataset)
    assert "ALARM Users of the test split: none: No user has three events" in said(
        made(tmp_path, {"log.csv": HEADER + "1,a,1\n1,b,2\n"})
    )


TIMES = {
    "12/21/2010 8:26": "12/1/2010 9:00",
    "21.12.2010 08:26": "01.12.2010 09:00",
    "Tue, 21 Dec 2010 08:26:00 GMT": "Wed, 01 Dec 2010 09:00:00 GMT",
    "2010-12-21 08:26:00 AM": "2010-12-01 09:00:00 AM",
}


@pytest.mark.parametrize("text", TIMES)
def test_the_usual_forms_of_times_are_read(tmp_path: Path, text: str) -> None:
    split = {"protocol": "temporal", "validation_from": "2010-12-10", "test_from": text}
    log = f'user,item,time\n1,a,"{TIMES[text]}"\n1,b,"{text}"\n'
    dataset = made(tmp_path, {"log.csv": log}, split=split)
    assert dataset.table("train")["times"].to_pylist() == [[1_291_194_000 * 10**6]]
    assert dataset.manifest.splits["test"].targets == 1
    (tmp_path / "day.csv").write_text(log.replace("1,", "2,"))
    assert append(config_of(tmp_path, "log", split=split), str(tmp_path / "day.csv")).manifest.users == 2


def test_a_day_alone_is_read_as_the_dataset_it_is_appended_to(tmp_path: Path) -> None:
    made(tmp_path, {"log.csv": HEADER + "1,a,21/12/2010\n1,b,03/12/2010\n"})
    (tmp_path / "day.csv").write_text(HEADER + "2,a,05/12/2010\n")
    grown = append(config_of(tmp_path, "log"), str(tmp_path / "day.csv"))
    times = [time for row in grown.table("train")["times"].to_pylist() for time in row]
    assert max(times) - min(times) == 18 * 86_400 * 10**6


def test_times_that_no_form_reads_are_shown_with_what_is_accepted(tmp_path: Path) -> None:
    text = refusal(tmp_path, {"log.csv": HEADER + "1,a,first of May\n"})
    assert "1 time cannot be parsed such as time='first of May'; accepted times are timestamps, dates" in text
    assert "time_format:" in text
    text = refusal(tmp_path, {"log.csv": HEADER + "1,a,3/4/2010\n"})
    assert "'3/4/2010' may be '%m/%d/%Y' or '%d/%m/%Y'; set time_format:" in text
    dataset = made(tmp_path, {}, {"time_format": "%d/%m/%Y"})
    assert dataset.table("train")["times"].to_pylist() == [[1_270_252_800 * 10**6]]


def test_a_split_may_be_in_epoch_seconds_where_the_log_is(tmp_path: Path) -> None:
    split = {"protocol": "temporal", "validation_from": 1_500_000_000, "test_from": "1.6e9"}
    dataset = made(
        tmp_path, {"log.csv": HEADER + "1,a,1.4e9\n1,b,1500000001\n1,c,1600000001\n"}, {"time_unit": "s"}, split=split
    )
    assert {name: counts.targets for name, counts in dataset.manifest.splits.items()} == {
        "train": 0, "validation": 1, "test": 1,
    }  # fmt: skip


def test_a_compressed_file_without_its_suffix_and_an_array_of_json_are_read(tmp_path: Path) -> None:
    rows = [{"user": "2024-01-01", "item": "a", "time": n} for n in range(3)]
    dataset = made(
        tmp_path, {"1.csv": gzip.compress((HEADER + "x,a,1\n").encode()), "2.json": json.dumps(rows, indent=1)}
    )
    assert ids(dataset) == ["2024-01-01", "x"], "a text that looks like a date is text"


def test_a_misspelt_or_nested_key_is_an_error_that_lists_the_keys(tmp_path: Path) -> None:
    line = json.dumps({"who": {"id": 7}, "item": "a", "time": 1})
    text = refusal(tmp_path, {"log.jsonl": line})
    assert "no line has the key 'user'; the keys are who.id, item, time" in text
    assert ids(made(tmp_path, {}, {"user": "who.id"})) == [7]
    assert "no line has the key 'tei'" in refusal(tmp_path, {}, {"user": "who.id", "tie_break": "tei"})


def test_the_item_table_may_be_the_log_itself(tmp_path: Path) -> None:
    log = "user,item,time,title\n1,a,1,old\n2,a,3,new\n3,a,2,middle\n4,b,1,only\n"
    table = {"path": str(tmp_path / "log" / "log.csv"), "id": "item", "show": ["title"]}
    text = refusal(tmp_path, {"log.csv": log}, items=table)
    assert (
        "1 values of 'item' stand on several rows, e.g. 'a'; keep one row per id, or set duplicates: first, last or"
        in text
    )
    for duplicates, title in (("first", "old"), ("last", "middle"), ("newest", "new")):
        time = {"time": "time"} if duplicates == "newest" else {}
        dataset = made(tmp_path, {}, items={**table, "duplicates": duplicates, **time})
        titles = dict(zip(*(dataset.items()[name].to_pylist() for name in ("id", "show_title")), strict=True))
        assert titles == {"a": title, "b": "only"}


def test_a_table_that_shares_no_id_shows_one_of_each_side(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,age\nu1,5\n")
    table = {"path": str(tmp_path / "users.csv"), "id": "id", "features": {"age": {}}}
    text = refusal(tmp_path, {"log.csv": HEADER + "x1,a,1\n"}, profile=table)
    assert "no value of 'id' (string such as 'u1') is a user of" in text
    assert "(string such as 'x1')" in text
    (tmp_path / "users.csv").write_text("id,age\n13085.0,5\n")
    assert made(tmp_path, {"log.csv": HEADER + "13085,a,1\n"}, profile=table).manifest.profile_features[0].size == 4


def test_a_dataset_of_older_rules_takes_no_new_log(tmp_path: Path) -> None:
    dataset = made(tmp_path, {"log.csv": HEADER + "1,a,1\n"})
    raw = json.loads(dataset.layout.manifest.read_text())
    dataset.layout.manifest.write_text(json.dumps({name: value for name, value in raw.items() if name != "reading"}))
    (tmp_path / "day.csv").write_text(HEADER + "2,a,2\n")
    with pytest.raises(UserError, match="read some values otherwise, such as 'NA'; make it anew"):
        append(config_of(tmp_path, "log"), str(tmp_path / "day.csv"))

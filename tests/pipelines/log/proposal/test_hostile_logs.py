"""A log may have any names and values: `mind init` writes YAML that can be read, or says one line. No Ray."""

from __future__ import annotations

import json
import math
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.config import yaml_text
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.log.formats import read_blocks
from pipelines.log.proposal.first_look import look_at
from pipelines.log.proposal.write import propose
from pipelines.log.public_sets.write import configuration
from pipelines.log.sources import fragments

ROWS = 120
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
HERE = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def log_of(folder: Path, **columns: Any) -> Path:
    rows = range(ROWS)
    plain = {"user": [n % 10 for n in rows], "item": [n * 7 % 30 for n in rows], "time": [10**9 + n for n in rows]}
    pq.write_table(pa.table(plain | columns), folder / "log.parquet")
    return folder / "log.parquet"


def config_of(path: Path, given: dict[str, str] | None = None, **tables: Path) -> Config:
    """The configuration as it is read back."""
    looks = {side: look_at(str(table)) for side, table in tables.items()}
    text = propose("mine", look_at(str(path), events=True), columns=given, **looks)
    assert isinstance(yaml.safe_load(text), dict)
    return Config.model_validate(yaml_text.parse(text))


def refusal(path: Path, **given: str) -> str:
    with pytest.raises(UserError) as caught:
        propose("mine", look_at(str(path), events=True), columns=given)
    assert str(caught.value).isprintable(), "one line"
    return str(caught.value)


# Names of columns


@given(NAME)
@HERE
@example("k\nhome: s3://evil/x\n#")
@example(".5")
@example("\x85")
@example("null")
def test_names_of_lists_write_nothing_but_a_comment(tmp_path: Path, name: str) -> None:
    lists = {"who": [1, 2] * 10, "item": [[7, 8], [8, 9]] * 10, "time": [[1, 2], [3, 4]] * 10}
    pq.write_table(pa.table(lists | {name: [[True, False]] * 20}), tmp_path / "log.parquet")
    config = config_of(tmp_path / "log.parquet", {"user": "who", "item": "item", "time": "time"})
    assert config.home == Config.model_fields["home"].get_default(call_default_factory=True)


@given(NAME, NAME, NAME)
@HERE
@example("a\x00", "b\x7f", "k\nhome: s3://evil/x\n#")
@example("a", "y" * 2000, "z" * 2000)
def test_any_names_of_columns_are_read_back_or_left_out(tmp_path: Path, item: str, brand: str, title: str) -> None:
    if len({item, brand, title, "user", "time"}) < 5 or "\0" in item:
        return
    table = pa.table(
        {
            item: [*range(30)],
            brand: [f"b{n % 3}" for n in range(30)],
            title: [f"t{n % 4}|u{n % 3}" for n in range(30)],
        }
    )
    pq.write_table(table, tmp_path / "items.parquet")
    rows = range(ROWS)
    log = {"user": [n % 10 for n in rows], item: [n * 7 % 30 for n in rows], "time": [10**9 + n for n in rows]}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    config = config_of(
        tmp_path / "log.parquet", {"user": "user", "item": item, "time": "time"}, items=tmp_path / "items.parquet"
    )
    assert config.data.events.item == item
    assert config.data.items is not None
    taken = {name for name in (brand, title) if name.isprintable() and len(name) <= 500}
    assert set(config.data.items.features) == taken


# Lists


@pytest.mark.parametrize(
    "lists",
    [
        {"item": [[7, 8], [8, 9, 7]], "time": [[1, 2], [3, 4, 5]]},
        {"item": [[7, 8], [8, 9, 7]], "when": [[1, 2], [3, 4, 5]]},
        {"product": [[7, 8], [8, 9, 7]], "time": [[1, 2], [3, 4, 5]]},
        {"product": [[7, 8], [8, 9, 7]], "timestamp": [[1, 2], [3, 4, 5]]},
        {"item": [[7, 8], [8, 9, 7]], "time": [1, 2]},  # a basket
    ],
)
def test_lists_of_any_name_are_events_and_the_log_is_no_table(tmp_path: Path, lists: dict[str, Any]) -> None:
    columns = {name: values * 20 for name, values in lists.items()} | {"brand": ["x", "y"] * 20}
    pq.write_table(pa.table({"user": [*range(40)], **columns}), tmp_path / "log.parquet")
    look = look_at(str(tmp_path / "log.parquet"), events=True)
    assert look.unrolled == tuple(name for name, values in lists.items() if isinstance(values[0], list))
    assert look.rows == 100
    item, time = lists
    config = config_of(tmp_path / "log.parquet", {"item": item, "time": time})
    assert (config.data.events.item, config.data.items, config.data.profile) == (item, None, None)


def test_lists_in_json_are_events(tmp_path: Path) -> None:
    row = {"item": ["a", "b"], "time": ["2024-01-02", "2024-03-01"], "tags": ["x"], "of": [{"a": 1}], "at": {"b": 2}}
    (tmp_path / "log.jsonl").write_text("".join(json.dumps({"user": n, **row}) + "\n" for n in range(9)))
    look = look_at(str(tmp_path / "log.jsonl"), events=True)
    assert (look.unrolled, look.rows) == (("item", "time"), 18)
    assert {column.name: column.kind for column in look.columns} == {
        "user": "ints", "item": "text", "time": "times", "at.b": "ints"
    }  # fmt: skip


def test_tags_beside_the_lists_of_events_are_no_events(tmp_path: Path) -> None:
    columns = {"item": [[7, 8], [8, 9, 7]], "time": [[1, 2], [3, 4, 5]], "tags": [["a"], []]}
    pq.write_table(pa.table({"user": [1, 2], **columns}), tmp_path / "log.parquet")
    look = look_at(str(tmp_path / "log.parquet"), events=True)
    assert (look.unrolled, look.rows) == (("item", "time"), 5)
    assert [column.name for column in look.columns] == ["user", "item", "time"]


def test_a_table_of_items_is_never_unrolled(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "item": [["a", "b"], ["c"]]}), tmp_path / "items.parquet")
    look = look_at(str(tmp_path / "items.parquet"))
    assert (look.rows, look.column("item").kind) == (2, "lists")


def test_keys_that_end_as_lists_are_written_are_keys(tmp_path: Path) -> None:
    row = {"tags[]": ["a", "b"], "tags": "x", "[]": 1, "of[]": {"in[]": 5}, "times[][]": "t"}
    lines = ({"user[]": n % 7, "item[]": n % 9, "time": 10**9 + n, **row} for n in range(ROWS))
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    look = look_at(str(tmp_path / "log.jsonl"), events=True)
    assert [column.name for column in look.columns] == [
        "user[]", "item[]", "time", "tags[]", "tags", "[]", "of[].in[]", "times[][]"
    ]  # fmt: skip
    assert [column.missing for column in look.columns] == [0] * 8
    events = config_of(tmp_path / "log.jsonl").data.events
    assert (events.user, events.item) == ("user[]", "item[]")
    (piece,) = fragments(events, [])
    (block,) = read_blocks(piece, events, [events.user, events.item])
    assert block.table["user[]"].to_pylist() == [n % 7 for n in range(ROWS)]


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "a[]", "b[]", "[]", "a.b", "c"]),
            st.integers(0, 3) | st.sampled_from(["x", None, True]) | st.lists(st.integers(0, 3), max_size=2)
            | st.dictionaries(st.sampled_from(["d", "d[]"]), st.integers(0, 3), max_size=2),
            max_size=4,
        ),
        min_size=1,
        max_size=6,
    )
)  # fmt: skip
@HERE
def test_any_keys_of_json_are_columns_by_their_own_names(tmp_path: Path, objects: list[dict[str, Any]]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in objects))
    try:
        look = look_at(str(path))
    except UserError:
        # an empty list is a row of no events
        nothing = [all(value == {} for value in each.values()) or [] in each.values() for each in objects]
        assert all(nothing), "there was something to look at"
        return
    plain = {key for each in objects for key, value in each.items() if not isinstance(value, (dict, type(None)))}
    found = {column.name for column in look.columns}
    assert found <= plain | {
        f"{key}.{inner}" for key in ("a", "a[]", "b[]", "[]", "a.b", "c") for inner in ("d", "d[]")
    } | {key for each in objects for key, value in each.items() if not value}


def test_a_key_of_numbers_and_text_is_a_column(tmp_path: Path) -> None:
    rows = ({"user": n if n % 2 else f"u{n}", "item": n % 7, "of": {"time": 10**9 + n}} for n in range(ROWS))
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    events = config_of(tmp_path / "log.jsonl").data.events
    assert (events.user, events.item, events.time) == ("user", "item", "of.time")


def test_values_in_objects_of_parquet_are_columns(tmp_path: Path) -> None:
    rows = range(ROWS)
    log = {"who": [{"user_id": n % 7} for n in rows], "what": [{"item": {"id": n % 9}} for n in rows]}
    pq.write_table(pa.table(log | {"time": [10**9 + n for n in rows]}), tmp_path / "log.parquet")
    assert [column.name for column in look_at(str(tmp_path / "log.parquet")).columns] == [
        "who.user_id", "what.item.id", "time"
    ]  # fmt: skip
    events = config_of(tmp_path / "log.parquet").data.events
    assert (events.user, events.item) == ("who.user_id", "what.item.id")


# What columns hold


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1e308])
def test_ratings_that_are_no_numbers_are_not_counted(tmp_path: Path, odd: float) -> None:
    path = log_of(tmp_path, rating=[odd if n % 7 == 0 else 1.5 + n % 4 for n in range(ROWS)])
    text = propose("mine", look_at(str(path), events=True))
    assert yaml.safe_load(text)["name"] == "mine"
    assert "column: rating, below: 3," in text


def test_ratings_as_text_that_no_number_holds(tmp_path: Path) -> None:
    path = log_of(tmp_path, rating=["1e999" if n % 7 == 0 else f"{1 + n % 5}" for n in range(ROWS)])
    assert "column: rating, below: 3," in propose("mine", look_at(str(path), events=True))


ODD: dict[str, list[Any]] = {
    "meta": [[{"a": n}] for n in range(ROWS)],
    "tags": [["a", "b"][: n % 3] for n in range(ROWS)],
    "flag": [n % 2 == 0 for n in range(ROWS)],
    "part": [n + 0.5 for n in range(ROWS)],
    "none": [None] * ROWS,
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("role", ["user", "item"])
def test_a_column_that_can_be_no_id_is_refused_in_one_line(tmp_path: Path, role: str, name: str) -> None:
    said = refusal(log_of(tmp_path, **{name: ODD[name]}), **{role: name})
    assert f"--{role} {name}" in said
    assert "integers, text or UUIDs" in said


@pytest.mark.parametrize("name", ["meta", "tags", "flag", "none", "words"])
def test_a_column_that_holds_no_times_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    said = refusal(log_of(tmp_path, **(ODD | {"words": [f"w{n % 9}" for n in range(ROWS)]})), time=name)
    assert f"--time {name}" in said
    assert "timestamps, dates, numbers, ISO text" in said


@pytest.mark.parametrize("roles", [("user", "item"), ("user", "time"), ("item", "time")])
def test_a_column_has_one_role(tmp_path: Path, roles: tuple[str, str]) -> None:
    said = refusal(log_of(tmp_path), **dict.fromkeys(roles, "user"))
    assert f"'user' is given for --{roles[0]} and --{roles[1]}" in said


def test_ids_of_bytes_and_floats_are_taken(tmp_path: Path) -> None:
    path = log_of(
        tmp_path, who=[uuid.UUID(int=n % 9).bytes for n in range(ROWS)], what=[float(n % 9) for n in range(ROWS)]
    )
    config = config_of(path, {"user": "who", "item": "what"})
    assert (config.data.events.user, config.data.events.item) == ("who", "what")


def test_what_is_listed_to_choose_from_may_hold_anything(tmp_path: Path) -> None:
    columns = {"a\nb": ODD["tags"], "meta": ODD["meta"], "x": [*range(ROWS)], "y": [*range(ROWS)]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    assert "no column seems to be the" in refusal(tmp_path / "log.parquet")


def test_event_types_are_words_and_no_lists(tmp_path: Path) -> None:
    assert config_of(log_of(tmp_path, type=ODD["tags"])).data.events.event_type is None


# Logs that are odd as a whole


def of_lines(folder: Path, *lines: str) -> str:
    """What is written of a CSV."""
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    return propose("mine", look_at(str(folder / "log.csv"), events=True))


def rows_of(*columns: Any) -> list[str]:
    return [",".join(str(column(n)) for column in columns) for n in range(60)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["user,item,time"], "no row to look at"),
        (["user,item,time", "1,2"], "no row to look at; 1 lines are no rows"),
        (["item", "1", "2"], "has item; a log needs a user, an item and a time"),
        (["user,item", "1,2"], "has user, item; a log needs"),
        (["user,user,item,time", "1,2,3,4"], "user stands several times in the file and counts for none"),
    ],
)
def test_what_is_no_log_is_one_line(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        of_lines(tmp_path, *lines)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((lambda n: 1, lambda n: n, lambda n: n), "CHECK: all rows looked at have one user"),
        ((lambda n: n, lambda n: "x", lambda n: n), "CHECK: all rows looked at have one item"),
        ((lambda n: n % 5, lambda n: n, lambda n: "2024-01-01"), "CHECK: all rows looked at have one time"),
        ((lambda n: n % 5, lambda n: n, lambda n: 0), "CHECK: all rows looked at have one time"),
        (
            (lambda n: n % 5, lambda n: n, lambda n: f"21{n:02d}-01-01"),
            "CHECK: the last of these times, 2159-01-01, is",
        ),
        ((lambda n: n % 5, lambda n: n, lambda n: 5 * 10**9 + n), "CHECK: the last of these times, 2128-06-11, is"),
        ((lambda n: n % 5 or -1, lambda n: n, lambda n: n), "CHECK: 12 rows have the user -1"),
        ((lambda n: n % 5, lambda n: n - 1, lambda n: n), "CHECK: 1 row has the item -1"),
    ],
)
def test_what_can_hardly_be_is_said(tmp_path: Path, columns: tuple[Any, ...], said: str) -> None:
    text = of_lines(tmp_path, "user,item,time", *rows_of(*columns))
    assert said in text
    Config.model_validate(yaml_text.parse(text))


def test_negative_numbers_are_ids_and_an_order(tmp_path: Path) -> None:
    text = of_lines(tmp_path, "user,item,time", *rows_of(lambda n: -1 - n % 5, lambda n: -n, lambda n: -1000 * n))
    assert "its numbers only order" in text
    assert "CHECK" not in text


def test_what_would_be_nobody_is_set_aside_once_its_line_is_taken(tmp_path: Path) -> None:
    text = of_lines(tmp_path, "user,item,time", *rows_of(lambda n: n % 5 or -1, lambda n: n, lambda n: n))
    asked = text.replace("# null_values", "null_values")
    assert -1 in Config.model_validate(yaml_text.parse(asked)).data.events.null_values


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("0,user,item,time", True),  # pandas' number of a column without a name
        (",user,item,time", True),
        ("1.5,7,8,9", False),
        ("1,u7,i8,2024-01-01", False),
    ],
)
def test_a_header_may_have_a_number_in_it(tmp_path: Path, header: str, named: bool) -> None:
    last = (lambda n: n) if named or header == "1.5,7,8,9" else (lambda n: f"2024-01-{1 + n % 28:02d}")
    ids = [lambda n: n, *[(lambda n: n) if named or header == "1.5,7,8,9" else (lambda n: f"u{n}")] * 2, last]
    (tmp_path / "log.csv").write_text("\n".join([header, *rows_of(*ids)]))
    look = look_at(str(tmp_path / "log.csv"))
    assert look.rows == (60 if named else 61)
    assert ("columns" in look.settings) != named


def test_a_first_line_with_a_day_in_it_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "\n".join(rows_of(lambda n: f"u{n % 5}", lambda n: f"i{n}", lambda n: "2024-01-02"))
    )
    assert look_at(str(tmp_path / "log.csv")).rows == 60


def test_lines_that_are_no_rows_are_counted(tmp_path: Path) -> None:
    assert "from all 1 row; 2 lines among them are no rows" in of_lines(
        tmp_path, "user,item,time", "1,2", "1,2,3,4", "5,6,7"
    )


def test_a_column_that_stands_twice_is_left_out_and_said(tmp_path: Path) -> None:
    text = of_lines(tmp_path, "user,item,time,tag,tag", *rows_of(*[lambda n: n % 7] * 5))
    assert "# left out, as it stands several times in the file: tag" in text


def test_columns_of_any_names_are_asked_for_by_them(tmp_path: Path) -> None:
    rows = rows_of(lambda n: f"ю{n % 5}", lambda n: n, lambda n: 1600000000 + 86400 * n)
    (tmp_path / "log.csv").write_text("\n".join(["a: b,товар # x,время", *rows]))
    events = config_of(tmp_path / "log.csv", {"user": "a: b", "item": "товар # x"}).data.events
    assert (events.user, events.item, events.time, events.time_unit) == ("a: b", "товар # x", "время", "s")


def test_three_hundred_columns_are_taken_with_a_word(tmp_path: Path) -> None:
    path = log_of(tmp_path, **{f"x{k}": [(n * 7 % 30) % 3 for n in range(ROWS)] for k in range(300)})
    assert "# CHECK: 300 features, and each costs time" in propose("mine", look_at(str(path), events=True))


# The command


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "a\nb", "x" * 101])
@pytest.mark.parametrize("command", [["init"], ["import", "movielens"]])
def test_a_name_that_is_none_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], name: str
) -> None:
    log = log_of(tmp_path)
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    for out in ([], ["--out", "x.yaml"]):
        result = CliRunner().invoke(app, [*command, str(log), "--name", name, *out])
        assert result.exit_code == 2
        (line,) = result.output.strip().splitlines()
        assert "--name" in line
        assert "must be at most 100 letters" in line
    assert [*(tmp_path / "in").iterdir()] == []
    assert {each.name for each in tmp_path.iterdir()} == {"log.parquet", "in"}


@pytest.mark.parametrize("name", ["null", "1e3", "007", "no", "1.5"])
def test_a_name_that_yaml_reads_as_something_else_stays_text(tmp_path: Path, name: str) -> None:
    out = tmp_path / "x.yaml"
    result = CliRunner().invoke(app, ["init", str(log_of(tmp_path)), "--name", name, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert load_config(out).name == name


def test_what_would_not_be_read_is_not_written(tmp_path: Path) -> None:
    path = log_of(tmp_path, **{"who\0": [n % 10 for n in range(ROWS)]})
    arguments = ["init", str(path), "--user", "who\0", "--out", str(tmp_path / "x.yaml")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "x.yaml").exists()


def test_a_public_set_s_folder_of_any_name_writes_nothing_but_a_comment(tmp_path: Path) -> None:
    folder = tmp_path / "k\nhome: evil\n#"
    folder.mkdir()
    review = {"reviewerID": "u", "asin": "a", "unixReviewTime": 1}
    (folder / "reviews_Beauty_5.json").write_text(json.dumps(review) + "\n")
    (folder / "meta_Beauty.json").write_text("{'asin': 'a'}\n")
    config = yaml.safe_load(configuration("amazon-reviews", str(folder), "mine"))
    assert "home" not in config
    assert config["data"]["events"]["path"] == str(folder / "reviews_Beauty_5.json")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, mode: str = "r", **how: Any) -> Any:
        if mode != "x":
            return opened(path, mode, **how)
        path.touch()
        return Path("/dev/full").open("w", **how)

    arguments = ["init", str(log_of(tmp_path)), "--out", str(tmp_path / "x.yaml")]
    opened = Path.open
    monkeypatch.setattr(Path, "open", full)
    result = CliRunner().invoke(app, arguments)
    assert "x.yaml: cannot be written (No space left" in result.output
    assert not (tmp_path / "x.yaml").exists()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["init", str(log_of(tmp_path)), "--out", str(tmp_path / "no" / "x.yaml")])
    assert result.exit_code == 2
    assert "x.yaml: cannot be written" in result.output

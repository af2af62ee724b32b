"""Which columns are the user, the item and the time, guessed or said. No Ray."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.config import yaml_text
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.log.formats import read_blocks
from pipelines.log.normalise import normalise
from pipelines.log.proposal.first_look import look_at
from pipelines.log.proposal.roles import guess_roles, settled
from pipelines.log.proposal.write import propose
from pipelines.log.sources import fragments
from pipelines.log.times import FORMATS, parse_times


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    path = tmp_path / "ratings.dat"
    path.write_text("".join(f"{n % 40}::{n % 70}::5::{978300000 + 3600 * n}\n" for n in range(900)))
    return path


def test_a_log_without_names_is_described_once_its_columns_are_said(tmp_path: Path, ratings: Path) -> None:
    said = ["--user", "column_1", "--item", "column_2"]
    result = CliRunner().invoke(app, ["init", str(ratings), *said, "--out", str(tmp_path / "shop.yaml")])
    assert result.exit_code == 0, result.output
    events = load_config(tmp_path / "shop.yaml").data.events
    assert (events.user, events.item, events.time, events.time_unit) == ("column_1", "column_2", "column_4", "s")
    assert "user: column_1 # as you said" in result.output
    assert "the first row: 0, 0, 5, 978300000" in result.output


def test_the_message_shows_the_columns_and_the_option(ratings: Path) -> None:
    with pytest.raises(UserError, match=r"give --user COLUMN, one of column_1 \(ints, 40 values: 0, 1, ...\)"):
        guess_roles(look_at(str(ratings)))
    with pytest.raises(UserError, match=r"no column 'who' for --user; there is column_1, column_2"):
        guess_roles(look_at(str(ratings)), {"user": "who"})


def test_what_is_said_is_not_guessed_for_another_role(ratings: Path) -> None:
    roles = guess_roles(look_at(str(ratings)), {"item": "column_1", "user": "column_2"})
    assert (roles.user.column.name, roles.item.column.name) == ("column_2", "column_1")


def times(folder: Path, texts: list[str], rows: int = 60) -> Path:
    """A log with these times, over and over."""
    path = folder / "log.csv"
    lines = [f"u{n % 7},i{n % 9},{texts[n % len(texts)]}" for n in range(rows)]
    path.write_text("\n".join(["user,item,time", *lines]) + "\n")
    return path


DAY_FIRST = [f"{n:02d}/01/2010 8:26" for n in range(1, 12)]  # a month, in the order of its days


def test_days_that_may_be_months_are_a_guess_that_says_so(tmp_path: Path) -> None:
    text = propose("mine", look_at(str(times(tmp_path, DAY_FIRST))))
    said = 'CHECK, a guess: 01/01/2010 8:26 may be "%m/%d/%Y %H:%M" too; --time-format says it'
    assert f'    time_format: "%d/%m/%Y %H:%M" # {said}' in text.splitlines()
    text = propose("mine", look_at(str(times(tmp_path, [f"01/{n:02d}/2010" for n in range(1, 12)]))))
    assert 'time_format: "%m/%d/%Y" # CHECK, a guess' in text


def test_of_two_forms_that_both_go_forward_the_shorter_time_is_likelier(tmp_path: Path) -> None:
    text = propose("mine", look_at(str(times(tmp_path, ["01/02/2010", "03/02/2010", "02/02/2010"]))))
    assert 'time_format: "%d/%m/%Y" # CHECK, a guess' in text


def test_a_form_that_is_told_by_the_values_is_no_guess(tmp_path: Path) -> None:
    text = propose("mine", look_at(str(times(tmp_path, ["12/1/2010 8:26", "12/13/2010 9:00"]))))
    assert 'time_format: "%m/%d/%Y %H:%M" # as in 12/' in text


@pytest.mark.parametrize("form", ["%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"])
def test_the_form_that_is_said_takes_the_place_of_the_guess(tmp_path: Path, form: str) -> None:
    arguments = ["init", str(times(tmp_path, DAY_FIRST)), "--time-format", form, "--out", str(tmp_path / "shop.yaml")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert load_config(tmp_path / "shop.yaml").data.events.time_format == form
    assert f'time_format: "{form}" # as you said' in result.output


def test_a_form_that_no_guess_knows_finds_the_times(tmp_path: Path) -> None:
    path = times(tmp_path, ["10_02_2010", "11_02_2010"])
    path.write_text(path.read_text().replace("time", "a"))
    with pytest.raises(UserError, match="no column seems to be the time"):
        guess_roles(look_at(str(path)))
    roles = guess_roles(look_at(str(path), time_format="%d_%m_%Y"))
    assert (roles.time.column.name, roles.time.column.kind) == ("a", "times")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("%d.%m.%Y", r"--time-format '%d.%m.%Y' is not the form of the times in time, which holds 01/01/2010 8:26 and"),
        ("%H:%M", "--time-format: time_format='%H:%M': must say at least year, month and day"),
        ("%Y-%m-%d %Y", "--time-format: time_format='%Y-%m-%d %Y': must say at least year, month and day"),
        ("nonsense", "--time-format: time_format='nonsense': must say at least year, month and day"),
    ],
)
def test_a_form_that_is_none_or_not_the_times_is_one_line(tmp_path: Path, form: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        guess_roles(look_at(str(times(tmp_path, DAY_FIRST)), time_format=form))
    assert str(caught.value).isprintable()


def test_iso_times_are_not_of_a_form_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the form of the times in time, which holds 2010-01-02"):
        guess_roles(look_at(str(times(tmp_path, ["2010-01-02"])), time_format="%d/%m/%Y"))


@given(
    st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)), min_size=1, max_size=30),
    st.sampled_from(FORMATS),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_of_any_usual_form_reads_the_times(tmp_path: Path, moments: list[datetime], form: str) -> None:
    moments = [each.replace(tzinfo=UTC) for each in moments]
    texts = [f'"{each.strftime(form)}"' for each in moments]
    time = guess_roles(look_at(str(times(tmp_path, texts, len(texts))))).time.column
    read = parse_times(time.values, "us", "", form=time.form)
    assert read.null_count == 0, "whatever is guessed, every row is read"
    assert form in time.forms or read.equals(parse_times(time.values, "us", "", form=form))


def test_rows_from_all_over_a_log_settle_what_its_first_rows_leave_open(tmp_path: Path) -> None:
    roles = guess_roles(look_at(str(times(tmp_path, DAY_FIRST))))
    assert roles.time.column.forms == ("%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M")
    rows = pa.table({"time": ["02/27/2010 9:00"]})
    assert settled(roles, rows).time.column.forms == ("%m/%d/%Y %H:%M",)
    assert settled(roles, None) is roles


@pytest.mark.parametrize(
    ("form", "last"), [("%Y%m%d", 20240110), ("%Y%m%d%H%M", 202401101234), ("%Y%m%d%H%M%S", 20240110123456)]
)
@pytest.mark.parametrize("is_text", [False, True])
def test_days_written_as_numbers_are_times(tmp_path: Path, form: str, last: int, is_text: bool) -> None:
    numbers = [last - n % 9 * 10 ** (len(str(last)) - 8) for n in range(60)]
    path = tmp_path / ("log.csv" if is_text else "log.parquet")
    log = pa.table({"user": [n % 7 for n in range(60)], "item": [*range(60)], "time": numbers})
    csv.write_csv(log, path) if is_text else pq.write_table(log, path)
    text = propose("mine", look_at(str(path)))
    assert f'time_format: "{form}" # as in {last}' in text
    config = Config.model_validate(yaml_text.parse(text))
    block = next(read_blocks(fragments(config.data.events, [])[0], config.data.events, ["user", "item", "time"]))
    found = normalise(block.table, config.data.events, "us", "log").events
    assert pc.max(found["time"]).as_py() // 86_400_000_000 == (date(2024, 1, 10) - date(1970, 1, 1)).days


def test_numbers_that_are_no_days_stay_numbers(tmp_path: Path) -> None:
    log = {"user": [1, 2] * 30, "item": [*range(60)], "time": [20240101 + n for n in range(60)]}  # the 32nd is no day
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    assert look_at(str(tmp_path / "log.parquet")).column("time").forms == ()


def test_a_column_called_as_a_role_is_taken_for_no_other(tmp_path: Path) -> None:
    log = {"user": [n % 2 == 0 for n in range(60)], "item": [*range(60)], "time": [*range(60)]}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    with pytest.raises(
        UserError, match=r"no column seems to be the user; .*user \(bools, .*ids must be integers, text or"
    ):
        guess_roles(look_at(str(tmp_path / "log.parquet")))
    (tmp_path / "log.csv").write_text(
        "user,item,time\n" + "".join(f"2024-01-0{1 + n % 5},{n},{n}\n" for n in range(60))
    )
    roles = guess_roles(look_at(str(tmp_path / "log.csv")))
    assert [each.column.name for each in (roles.user, roles.item, roles.time)] == ["user", "item", "time"]

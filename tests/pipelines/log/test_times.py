import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.schema import EventSource
from pipelines.errors import UserError
from pipelines.log.times import FORMATS, parse_times, time_format

MOMENT = dt.datetime(2010, 12, 21, 20, 26, 7, tzinfo=dt.UTC)


def microseconds(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "form", "means"),
    [
        ("12/21/2010 8:26", "%m/%d/%Y %H:%M", (2010, 12, 21, 8, 26)),
        ("21/12/2010 08:26", "%d/%m/%Y %H:%M", (2010, 12, 21, 8, 26)),
        ("01.12.2010 08:26", "%d.%m.%Y %H:%M", (2010, 12, 1, 8, 26)),
        ("Wed, 01 Dec 2010 08:26:07 GMT", "%a, %d %b %Y %H:%M:%S %Z", (2010, 12, 1, 8, 26, 7)),
        ("Wed, 01 Dec 2010 08:26:07 +0200", "%a, %d %b %Y %H:%M:%S %z", (2010, 12, 1, 6, 26, 7)),
        ("12/21/2010 8:26 PM", "%m/%d/%Y %I:%M %p", (2010, 12, 21, 20, 26)),
        ("2010-12-21 08:26:07 PM", "%Y-%m-%d %I:%M:%S %p", (2010, 12, 21, 20, 26, 7)),
        ("21-Dec-10", "%d-%b-%y", (2010, 12, 21)),
        ("05 31, 2014", "%m %d, %Y", (2014, 5, 31)),
        ("21/Dec/2010:08:26:07 +0000", "%d/%b/%Y:%H:%M:%S %z", (2010, 12, 21, 8, 26, 7)),
        ("Wed Dec 01 08:26:07 +0000 2010", "%a %b %d %H:%M:%S %z %Y", (2010, 12, 1, 8, 26, 7)),
    ],
)
def test_the_usual_forms_are_found_and_read(text: str, form: str, means: tuple[int, ...]) -> None:
    column = pa.array([text, f" {text} ", None, "noon"] + [text] * 20)
    assert time_format([column.slice(0, 2)], "") == form
    expected = microseconds(dt.datetime(*means, tzinfo=dt.UTC))  # type: ignore[arg-type]
    assert parse_times(column, "us", "", form=form).to_pylist()[:4] == [expected, expected, None, None]


@pytest.mark.parametrize("form", [each for each in FORMATS if "%y" not in each])
def test_what_a_form_writes_it_reads(form: str) -> None:
    text = MOMENT.strftime(form)
    (found,) = parse_times(pa.array([text]), "us", "", form=form).to_pylist()
    assert abs(found - microseconds(MOMENT)) < 86_400 * 10**6


def test_days_that_might_be_months_are_told_apart_by_later_blocks_or_refused() -> None:
    doubtful = pa.array(["3/4/2010 8:26", "1/2/2010 9:00"])
    assert time_format([doubtful, pa.array(["3/14/2010 9:00"])], "") == "%m/%d/%Y %H:%M"
    assert time_format([doubtful, pa.array([""]), pa.array(["14/3/2010 9:00"])], "") == "%d/%m/%Y %H:%M"
    with pytest.raises(
        UserError, match=r"log: '3/4/2010 8:26' may be '%m/%d/%Y %H:%M' or '%d/%m/%Y %H:%M'; set time_f"
    ):
        time_format([doubtful], "log")


def test_iso_text_and_what_no_form_reads_have_none() -> None:
    assert time_format([pa.array(["2010-12-01T08:26:00Z", "x"])], "") is None
    assert time_format([pa.array(["yesterday"])], "") is None
    assert time_format([], "") is None


def test_a_form_is_of_text_and_iso_is_read_beside_it() -> None:
    texts = pa.array(["21.12.2010", "2010-12-21", "2010-12-21T00:00:00Z", "x"])
    day = microseconds(dt.datetime(2010, 12, 21, tzinfo=dt.UTC))
    assert parse_times(texts, "us", "", form="%d.%m.%Y").to_pylist() == [day, day, day, None]
    assert parse_times(pa.array(["21.12.2010", "7"]), "us", "", "s", "%d.%m.%Y").to_pylist() == [day, 7_000_000]


@pytest.mark.parametrize("form", ["yyyy-mm-dd", "%H:%M", "%Q", ""])
def test_a_form_without_a_date_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match="must say at least year, month and day"):
        EventSource(path="log", time_format=form)


def test_numbers_may_have_a_power_of_ten() -> None:
    texts = pa.array(["1.5e9", "1.5E+9", "15e8", "1500000000", "-2.5e-1", "1e400", None])
    found = parse_times(texts, "us", "", "s").to_pylist()
    assert found == [1_500_000_000 * 10**6] * 4 + [-250_000, None, None]
    assert parse_times(texts, "number", "").to_pylist() == [1_500_000_000] * 4 + [0, None, None]


@given(st.lists(st.integers(-(10**15), 10**15)), st.sampled_from(["{}", "{}.0", "{}e0", "{:.15e}"]))
def test_a_number_is_the_same_however_it_is_written(numbers: list[int], form: str) -> None:
    texts = pa.array([form.format(n) for n in numbers], pa.string())
    assert parse_times(texts, "number", "").to_pylist() == numbers

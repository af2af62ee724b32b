import pytest

from pipelines.config.numbers import parse_number, parse_whole, show_bytes, show_count, show_seconds
from pipelines.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e9", 1e9), ("10M", 1e7), ("1_000_000", 1e6), ("256G", 2.56e11), ("1.5k", 1500), ("2B", 2e9), (" 7 ", 7)],
)
def test_numbers_are_read_as_people_write_them(text: str, value: float) -> None:
    assert parse_number(text, "--events") == value


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "1e", "1e999", "nan", "inf", "10 M M", "1,000"])
def test_what_is_no_number_above_0_is_refused_by_its_option(text: str) -> None:
    with pytest.raises(UserError, match=r"--events .* must be a number above 0, for example 1e9"):
        parse_number(text, "--events")


def test_a_count_has_no_fraction() -> None:
    assert parse_whole("1.5k", "--users") == 1500
    with pytest.raises(UserError, match=r"--users '1\.5' must be a whole number"):
        parse_whole("1.5", "--users")


def test_figures_are_shown_in_the_unit_that_suits_them() -> None:
    assert [show_bytes(value) for value in (0, 999, 25.6e9, 2e12)] == ["0 B", "999 B", "25.6 GB", "2.00 TB"]
    assert [show_seconds(value) for value in (9, 90, 7200, 3 * 86_400)] == ["9 s", "1.50 min", "2.00 h", "3.00 days"]
    assert [show_count(value) for value in (300, 1.5e6)] == ["300", "1.50 M"]

"""One of a thing is named in the singular, wherever a sentence counts."""

import ast
import re
from pathlib import Path

import pytest

from pipelines.words import counted

ROOT = Path(__file__).parents[2]
NO_NUMBER = re.compile(r"split$|^show_count")  # "test users"; figures as 1.2 M
COUNTED = ["epochs", "interests", "points", "seeds", "trainings", "trials", "users", "vectors", "workers"]
AFTER_A_NUMBER = re.compile(rf"^ ({'|'.join(COUNTED)})\b")


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 users"), (1, "1 user"), (2, "2 users"), (1234, "1,234 users"), (2.5, "2.5 users")]
)
def test_one_is_singular_and_thousands_are_set_apart(count: float, said: str) -> None:
    assert counted(count, "user") == said


def test_a_plural_of_its_own_may_hold_the_verb() -> None:
    assert counted(1, "row is", "rows are") == "1 row is"
    assert counted(3, "row is", "rows are") == "3 rows are"


def plurals(code: str) -> list[str]:
    """List the f-strings that set a plural behind a number as it comes: 1 users."""
    found = []
    for text in [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.JoinedStr)]:
        for value, after in zip(text.values, text.values[1:], strict=False):
            is_text = isinstance(after, ast.Constant) and isinstance(after.value, str)
            noun = AFTER_A_NUMBER.match(after.value) if is_text else None
            if isinstance(value, ast.FormattedValue) and noun is not None:
                said = ast.unparse(value.value)
                found += [] if NO_NUMBER.search(said) else [f"line {text.lineno}: {said}{noun[0]}"]
    return found


def test_a_plural_behind_a_number_is_found() -> None:
    assert plurals('f"{n:,} users, {one} user, {name} userside, {split} users"') == ["line 1: n users"]


def test_no_sentence_counts_without_the_helper() -> None:
    files = [file for room in ("jobs", "mind", "pipelines") for file in (ROOT / room).rglob("*.py")]
    lost = {f"{file.relative_to(ROOT)}, {found}" for file in files for found in plurals(file.read_text())}
    assert not lost

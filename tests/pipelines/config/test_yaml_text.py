"""What is written as YAML is read back as it was, by our reader and by any other. No Ray."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.config.yaml_text import WORDS, in_a_comment, parse, quoted

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
PLAIN_IN_YAML = [
    *WORDS,
    ".5",
    ".nan",
    ".inf",
    ".NaN",
    ".",
    "..",
    "1e3",
    "0x1f",
    "1_000",
    "12:30",
    "2024-01-01",
    "~",
    "<<",
]


@given(st.one_of(TEXT, st.sampled_from(PLAIN_IN_YAML), st.text("._-/eE0123456789nafi", max_size=6)))
@example("\x7f")
@example("\x85")
@example("\u2028")
@example("\ufeff")
@example("\ufffe")
@example("\U000e0001")
def test_any_text_is_read_back_as_it_was(text: str) -> None:
    for line in (f"a: {quoted(text)} # why", f"a: {{b: [{quoted(text)}, x]}}", f"{quoted(text)}: 1"):
        assert len(line.splitlines()) == 1
        assert line.isprintable()
    assert parse(f"a: {quoted(text)} # why") == yaml.safe_load(f"a: {quoted(text)}") == {"a": text}
    assert parse(f"a: {{{quoted(text)}: [{quoted(text)}]}}") == {"a": {text: [text]}}


@pytest.mark.parametrize("text", ["./a/b.csv", "../a.parquet", "/data/x", "user_id", "a.b"])
def test_paths_and_names_stay_as_they_are(text: str) -> None:
    assert quoted(text) == text


@given(TEXT)
def test_a_comment_is_one_line_of_what_can_be_printed(text: str) -> None:
    comment = in_a_comment(text, 20)
    assert len(comment) <= 20
    assert comment.isprintable()
    assert yaml.safe_load(f"a: 1 # {comment}") == {"a": 1}

"""No name leaves the folder that it is put into, and no two names share a file."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipelines.config.load import load_config
from pipelines.config.names import MAX_NAME, FeatureName, Name, file_name, home_place, is_name
from pipelines.errors import UserError

HOSTILE = [
    "",
    ".",
    "..",
    "...",
    ".hidden",
    "-flag",
    "/",
    "/etc",
    "a/b",
    "../x",
    "..\\x",
    "a\\b",
    "a\n",
    "a\0b",
    "~",
    "ä",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)  # surrogates are no text: no table holds them


@pytest.mark.parametrize("name", [*HOSTILE, "x" * (MAX_NAME + 1)])
def test_a_name_that_is_more_than_a_name_is_refused_by_its_value(conf: Path, name: str) -> None:
    conf.write_text(conf.read_text().replace("name: tiny", f"name: {ascii_yaml(name)}"))
    with pytest.raises(UserError, match=r"^\S+: (name=.*: must be at most 100 letters|line 1: .* NUL)") as caught:
        load_config(conf)
    assert "\n" not in str(caught.value)


def ascii_yaml(text: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08X}" for character in text) + '"'


@pytest.mark.parametrize("name", ["a", "ml-1m", "beauty_2014", "v1.2", "_x", "x" * MAX_NAME])
def test_a_plain_name_is_taken(conf: Path, name: str) -> None:
    conf.write_text(conf.read_text().replace("name: tiny", f"name: '{name}'"))
    assert load_config(conf).dataset_path.name == name


@given(st.one_of(TEXT, st.sampled_from(HOSTILE)))
def test_whatever_is_accepted_as_a_name_is_a_child_of_the_folder_it_is_put_into(name: str) -> None:
    home = Path("/home/x")
    if not is_name(name):
        with pytest.raises(UserError):
            home_place(home, "models", name)
        with pytest.raises(ValidationError):
            TypeAdapter(Name).validate_python(name)
        return
    place = home_place(home, "models", name)
    assert Path(os.path.normpath(place)) == place
    assert place.parent == home / "models"
    assert not name.startswith(".")


@given(TEXT)
@example("..")
@example("CON")
@example("a" * 300)
def test_the_file_of_any_text_stays_in_its_folder(text: str) -> None:
    name = f"{file_name(text)}.parquet"
    assert PurePosixPath(name).parts == PureWindowsPath(name).parts == (name,)
    assert not name.startswith(".")
    assert name.isascii()
    assert len(name) <= 255


@given(TEXT, TEXT)
@example("a/b", "a~2Fb")
@example("a/b", "a_b")
@example("", "~")
@example("x" * 300, "x" * 301)
@example("\N{KELVIN SIGN}", "K")
@example("e\u0301", "é")
def test_two_texts_have_two_files(first: str, second: str) -> None:
    assert (file_name(first) == file_name(second)) == (first == second)


@given(TEXT)
def test_a_name_that_needs_no_escape_is_its_own_file(text: str) -> None:
    if is_name(text):
        assert file_name(text) == text


@pytest.mark.parametrize("column", ["price/unit", "preis (€)", "Größe", "a b", "..", "../../../x", "100 %", "a=b"])
def test_any_printable_column_may_be_a_feature(column: str) -> None:
    assert TypeAdapter(FeatureName).validate_python(column) == column


@pytest.mark.parametrize("column", ["", "a\nb", "\0", "\ud800"])
def test_a_feature_that_no_line_can_name_is_refused(column: str) -> None:
    with pytest.raises(ValidationError, match="must be a column's name"):
        TypeAdapter(FeatureName).validate_python(column)

"""A configuration may hold anything: what is no good ends in one clear line, at once, in little memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.config import yaml_text
from pipelines.config.load import load_config
from pipelines.config.redact import redact
from pipelines.errors import UserError
from tests.pipelines.config.test_load import mistake

SECONDS = 1.0  # of CPU


def bomb(levels: int, with_name: bool) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join([*(["name: x"] if with_name else []), *lines])


HOSTILE = {
    "name: !!int x": "'x' is no int",
    "name: !!float x": "'x' is no float",
    "name: !!bool x": "'x' is no bool",
    "name: !!timestamp x": "tag",
    "name: !!map [1]": "tag",
    "name: !!seq {a: 1}": "tag",
    "name: !!binary '%'": "tag",
    "name: !!set [1]": "tag",
    "name: !!python/object:os.system x": "tag",
    "name: !x y": "tag",
    "name: &a [*a]": "an alias within",
    "a: &a {<<: *a}": "an alias within",
    "name: " + "[" * 3000 + "]" * 3000: "nested deeper",
    "name: " + "{a: " * 3000 + "1" + "}" * 3000: "nested deeper",
    "name: " + "[" * 100_000: "nested deeper",
    "\n".join(" " * n + "a:" for n in range(600)): "nested deeper",
    "name: " + "9" * 5000: "a number of 5,000",
    "name: " + "1:" + ":".join(["2"] * 40_000): "a number of",
    'name: "a\\0b"': "NUL",
    'name: "\\ud800"': "surrogate",
    bomb(20, with_name=True): "too large",
    bomb(20, with_name=False): "too large",
    f'a: &a "{"x" * 100_000}"\nb: [{", ".join(["*a"] * 100)}]': "too large",
    "name: " + "x" * 300_000: "more than 256 KiB",
    "? [a, b]\n: c": "a key must be plain text",
    "a: 1\na: 2": "appears twice",
    "%YAML 9.9\n---\na: 1": "",
    "--- a\n--- b": "",
    "\x00": "",
    "\x80": "",
    "": "",
}


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
def test_hostile_yaml_is_one_line_at_once(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text, "utf-8")
    began = time.process_time()
    said = mistake(file)
    assert time.process_time() - began < SECONDS
    assert HOSTILE[text] in said
    assert str(file) in said
    assert len(said) < 600


def test_tags_of_plain_values_are_taken() -> None:
    text = "{a: !!str 5, b: !!int '7', c: !!float 1, d: !!map {e: 1}, f: !!seq [1], g: !!null '', h: [&x 1, *x]}"
    assert yaml_text.parse(text) == {"a": "5", "b": 7, "c": 1.0, "d": {"e": 1}, "f": [1], "g": None, "h": [1, 1]}


@pytest.mark.parametrize("setting", ["name", "home", "data.events.path", "model.dim", "tracking.uri", "preset", "x"])
@pytest.mark.parametrize(
    "value", ["a" * 40_000, "a://" * 10_000, "a:" * 20_000, "x://" + "a:" * 20_000, "?key" * 10_000]
)
def test_a_long_value_costs_no_more_than_its_length(conf: Path, setting: str, value: str) -> None:
    began = time.process_time()
    said = ""
    try:
        load_config(conf, [f'{setting}="{value}"'])
    except UserError as error:
        said = str(error)
    assert len(said) < 1000
    assert time.process_time() - began < SECONDS


def test_a_megabyte_is_redacted_at_once() -> None:
    for text in ("a" * 10**6, "http://" * 10**5, "://" + "a:" * 10**5, "x://h?" + "key" * 10**5):
        began = time.process_time()
        redact(text)
        assert time.process_time() - began < SECONDS


def test_a_secret_in_an_endless_uri_is_hidden() -> None:
    assert redact("https://ann:secret@host/" + "x" * 3000) == "https://***"
    assert redact("see s3://key:secret@bucket, https://ann:x@h") == "see s3://***@bucket, https://***@h"


@pytest.mark.parametrize("delimiter", ["", "\\0", "\\n", "→", '\\"', "a\\nb"])
def test_a_delimiter_that_splits_nothing_is_refused(conf: Path, delimiter: str) -> None:
    said = mistake(conf, f'data.events.delimiter="{delimiter}"')
    assert "delimiter" in said


@pytest.mark.parametrize("encoding", ["xyz", "", "hex", "undefined", "utf-8\\0", "a" * 1000, "../x"])
def test_an_encoding_that_nobody_knows_is_refused(conf: Path, encoding: str) -> None:
    assert "encoding" in mistake(conf, f'data.events.encoding="{encoding}"')


TOKENS = st.sampled_from(
    ["a", "name", ":", ": ", "- ", "\n", "\n  ", "[", "]", "{", "}", ",", "&a ", "*a", "!!int ", "!!str ", "!x ", "? ",
     "|\n", ">\n", "'", '"', "#", "%", "@", "`", "1", "1e3", "0x", ".inf", "~", "null", "<<: ", "---\n", "...\n", "\t",
     "\\0", "\x00", "é", "☃", "\ufeff", "2020-01-01", "0o7", "1:2", "=", "\x85", "\u2028"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(TOKENS, max_size=60).map("".join)))
@example("0b")
@example("!!int ''")
@example("{&a a: *a}")
def test_any_text_is_a_value_or_a_yaml_error(text: str) -> None:
    said = ""
    try:
        yaml_text.parse(text)
    except yaml.YAMLError as error:
        said = yaml_text.problem(error)
    assert "\n" not in said

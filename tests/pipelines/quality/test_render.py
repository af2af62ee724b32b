"""Templates escape what comes in, and a value that is forgotten is an error and no blank."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup, escape

from pipelines.quality.render import TEMPLATES, render
from pipelines.quality.svg_plots import Series, bars

ROOT = Path(__file__).parents[3]


@given(st.text())
def test_any_text_is_escaped_where_it_is_put_in(text: str) -> None:
    plot = bars([Series(text, "s1", [1])], [text], [(0, text[:3])], text)
    assert isinstance(plot, Markup)
    assert f'aria-label="{escape(text)}"' in plot
    assert plot.count("<") == bars([Series("x", "s1", [1])], ["x"], [(0, text[:3] and "xxx"[: len(text)])], "x").count(
        "<"
    )


def test_a_value_that_is_forgotten_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="frame"):
        render("bars.svg.j2", stacks=[])


def test_every_template_is_installed_with_its_package() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    folders = [folder for folder in (ROOT / "pipelines").rglob("templates") if folder.is_dir()]
    assert TEMPLATES in folders
    for folder in folders:
        package = ".".join(folder.parent.relative_to(ROOT).parts)
        assert wanted[package] == ["templates/*"]
        assert all(file.is_file() for file in folder.iterdir()), "no folder within: the pattern takes files"

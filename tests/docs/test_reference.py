"""The generated pages have every setting and every command, as the code has them."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from docs.hooks.api import api_pages, modules
from docs.hooks.commands import commands, commands_page
from docs.hooks.json_results import json_page
from docs.hooks.links import ROOT, source_page
from docs.hooks.markdown import cell, code
from docs.hooks.settings import campaign_page, settings_page
from jobs.cli import app
from jobs.results import RESULTS, result_type
from pipelines.config.manual import _comments, parts
from pipelines.config.schema import Config
from pipelines.tuning.config import Campaign


def keys(section: type, prefix: str = "") -> Iterator[str]:
    """Each setting, by another way than the generator's: what the classes declare."""
    fields = (
        section.model_fields if issubclass(section, BaseModel) else {f.name: f for f in dataclasses.fields(section)}
    )
    for name, field in fields.items():
        inner = [each for each in nested(getattr(field, "annotation", None))]
        if inner:
            yield from (key for each in inner for key in keys(each, f"{prefix}{name}."))
        else:
            yield f"{prefix}{name}"


def nested(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        yield annotation
    for each in get_args(annotation):
        yield from nested(each)


@pytest.mark.parametrize(("root", "page"), [(Config, settings_page()), (Campaign, campaign_page())])
def test_every_setting_is_on_the_page_once(root: type, page: str) -> None:
    expected = sorted(keys(root))
    written = re.findall(r"^\| <code>([^<]+)</code> \|", page, re.MULTILINE)
    shown = sorted(name.replace("&#95;", "_").replace(".NAME", "").replace("&#91;&#93;", "") for name in written)
    assert shown == expected
    assert len(expected) > 20


def test_a_setting_has_its_type_bounds_default_and_manual() -> None:
    settings = {each.name: each for part in parts(Config) for each in part.settings}
    epochs = settings["train.epochs"]
    assert (epochs.accepts, epochs.default) == ("whole number ≥ 1", "`20`")
    assert settings["train.targets_per_user"].accepts == "whole number ≥ 1 or `null`"
    assert "null: every position is a target" in settings["train.targets_per_user"].manual
    assert settings["loss.kind"].accepts == "`sampled`, `full`, `auto`"
    assert settings["name"].default == "must be given"
    assert settings["model.hidden"].accepts == "list, each a whole number"
    assert "Action|Comedy" in settings["data.items.features.NAME.separator"].manual


def test_a_preset_that_differs_is_named_beside_the_setting() -> None:
    (line,) = [each for each in settings_page().splitlines() if each.startswith(f"| {code('model.initial_logits')} ")]
    assert f"Preset: paper {code('position')}." in line


def test_comments_up_to_the_next_field_belong_to_a_field() -> None:
    source = '''class A:
    """Text."""

    first: int = (
        1  # of a
    )
    # kind: b
    second: str = "#"

    @property
    def third(self):  # no field
        ...
'''
    assert _comments(source) == {"first": "of a; kind: b", "second": ""}


def test_every_command_and_option_is_on_the_page() -> None:
    page = commands_page()
    names = [name for name, _ in commands()]
    root = typer.main.get_command(app)
    assert {f"mind {name}" for name in root.commands} | {"mind jobs list"} <= set(names)
    for name, command in commands():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert cell(command.help) in section
        for each in command.params:
            if each.param_type_name == "option":
                assert all(option in section for option in each.opts), f"{name} {each.opts}"
                assert cell(each.help or "") in section


def test_every_module_of_the_model_has_a_page() -> None:
    assert {"mind_core.routing", "mind_core.model", "mind_core.loss"} <= set(modules())
    assert api_pages()["reference/api/mind_core.routing.md"].endswith("::: mind_core.routing\n")
    assert all(f"({name}.md)" in api_pages()["reference/api/index.md"] for name in modules())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a * b_c [d|e]", r"a \* b\_c \[d\|e\]"),
        ("``x|y`` and `a_b`", "<code>x&#124;y</code> and <code>a&#95;b</code>"),
        ("1 < 2\nor 3", "1 &lt; 2 or 3"),
    ],
)
def test_text_in_a_table_stays_in_its_cell(text: str, shown: str) -> None:
    assert cell(text) == shown


def test_a_docstring_becomes_markdown_with_its_shapes() -> None:
    text = """Score things.

    Parameters
    ----------
    behaviours : (B, L, d), e_i, oldest first.
        More of it.
    mask : (B, L) bool.  own : (B, K) bool.
    power
        p >= 0.

    Returns
    -------
    vectors : (B, K), zero at padding.

    Source: a paper.

    Examples
    --------
    By hand:

    >>> 1 + 1
    2

    Then more.
    """
    pytest.importorskip("griffe", reason="make docs installs MkDocs")
    from docs.hooks.docstrings import as_markdown

    shown = as_markdown(text)
    assert "**Parameters**\n\n- `behaviours`: (B, L, d), e_i, oldest first.\n    More of it.\n" in shown
    assert "\n- `mask`: (B, L) bool.\n- `own`: (B, K) bool.\n" in shown
    assert "- `power`\n    p >= 0." in shown
    assert "**Returns**\n\n- `vectors`: (B, K), zero at padding.\n\nSource: a paper." in shown
    assert as_markdown("A.\n\nx    1\nlong    2\n") == "A.\n\n\n    x    1\n    long    2"
    assert "By hand:\n\n\n```pycon\n>>> 1 + 1\n2\n```\n\nThen more." in shown


def test_the_page_of_json_has_every_command_field_and_inner_type() -> None:
    page = json_page()
    for command in RESULTS:
        assert f"## {command}\n" in page
        for field in dataclasses.fields(result_type(command)):
            assert f"| {code(field.name)} |" in page, (command, field.name)
    assert "**Split**" in page
    assert "rows of the log" in page
    assert "| <code>machine</code> | object of number by name | figures by their name |" in page


def test_a_notebook_is_shown_as_text_and_code() -> None:
    page = source_page(ROOT / "examples/movies.ipynb")
    assert page.startswith("# Movies")
    assert "```python\nimport polars as pl" in page
    assert '"cell_type"' not in page

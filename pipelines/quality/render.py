"""From a template and values to HTML: whatever comes in is escaped, and a value that a template lacks is an error.

``base.html.j2`` is the frame of every page and ``style.css`` its looks; the pages of other rooms extend it and lie in
folders of their own. A page needs no other file and no script.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, folder: Path = TEMPLATES, **values: Any) -> Markup:
    """Fill in the template of that name.

    Parameters
    ----------
    folder : where it lies; what it extends or imports may lie here instead.
    values : by the names that the template uses. Text is escaped; `Markup`, as of this function, is not.

    Raises
    ------
    jinja2.UndefinedError
        For a name that `values` lack.
    """
    return Markup(_environment(folder).get_template(template).render(**values))


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["count"] = "{:,}".format
    environment.filters["px"] = "{:.1f}".format
    return environment

"""Docstrings as Markdown: sections in the NumPy style, where `name : text` says shape and meaning in one line.

Readers of NumPy's own style take what stands after the colon for a type alone; the types stand in the signatures here.
"""

from __future__ import annotations

import inspect
import re
from itertools import pairwise
from typing import Any

import griffe

LISTED = ("Parameters", "Attributes", "Raises")
NAMED = ("Returns", "Yields")
UNDERLINE = re.compile(r"-{3,}\s*$")
ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: : (?P<text>.*))?$")
RESULT = re.compile(r"\w+ : ")
COLUMNS = re.compile(r"\S+ {3,}\S")  # laid out by hand
NEXT = re.compile(r"(?<=[.)])  +(?=\w+(?:, \w+)* : )")  # two entries in a line


class AsMarkdown(griffe.Extension):
    """Rewrites each docstring as it is read."""

    def on_object(self, *, obj: Any, loader: Any, **kwargs: Any) -> None:
        """Take in a module, class, function or attribute of the packages that are shown."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """Turn the sections of a docstring into lists and blocks of Markdown.

    Parameters
    ----------
    docstring : as it stands in the source, or cleaned.
    """
    lines = inspect.cleandoc(docstring).splitlines()
    heads = [n for n in range(len(lines) - 1) if lines[n].strip() and UNDERLINE.match(lines[n + 1])]
    out = _blocks(lines[: heads[0]] if heads else lines)
    for start, end in pairwise([*heads, len(lines)]):
        name, body = lines[start].strip(), lines[start + 2 : end]
        listed = name in LISTED or (name in NAMED and RESULT.match(body[0] if body else ""))
        out += ["", f"**{name}**", "", *(_entries(body) if listed else _blocks(body))]
    return "\n".join(out)


def _entries(body: list[str]) -> list[str]:
    out: list[str] = []
    for line in (piece for whole in body for piece in NEXT.split(whole)):
        entry = ENTRY.match(line)
        if entry and not line.startswith(" ") and (entry["text"] is not None or not out or " " not in line.strip()):
            names = ", ".join(f"`{name}`" for name in entry["names"].split(", "))
            out.append(f"- {names}: {entry['text']}" if entry["text"] else f"- {names}")
        elif line.startswith(" "):
            out.append(f"    {line.strip()}")
        else:
            if line and out and out[-1].startswith(("- ", "    ")):
                out.append("")
            out.append(line)
    return out


def _blocks(body: list[str]) -> list[str]:
    """Fence what a reader of Python would type, and give an indented block room."""
    out: list[str] = []
    inside = False
    for line in body:
        if COLUMNS.match(line) and not inside:
            line = f"    {line}"
        if line.startswith(">>> ") and not inside:
            out += ["", "```pycon"]
            inside = True
        elif inside and not line.strip():
            out.append("```")
            inside = False
        elif not inside and line.startswith("    ") and out and not out[-1].startswith(("    ", "- ", "* ")):
            out.append("")  # Markdown wants a blank line before code
        out.append(line)
    return [*out, "```"] if inside else out

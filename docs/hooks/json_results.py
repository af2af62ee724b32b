"""The reference of ``--json``: a table a command, made of the types that the commands print."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from docs.hooks.markdown import cell, code
from jobs.results import FORMAT, RESULTS, result_type

ENTRY = re.compile(r"(?:^|(?<=\. ))(\w+(?:, \w+)*) : ")


def json_page() -> str:
    """Write the page: what all documents have in common, then the fields of each result."""
    lines = [
        "# Results as JSON",
        "",
        "Every command of this page takes `--json`. Standard output then holds one JSON document and nothing else. "
        "Tables, progress and remarks go to standard error; `--quiet` leaves them out. After a mistake standard output "
        "is empty, and the exit code says what happened: [Commands](commands.md).",
        "",
        "```json",
        f'{{"command": "mind generate", "format": {FORMAT}, "result": {{"events": "log/events", "items": null}}}}',
        "```",
        "",
        "`format` changes when a field of an older document is gone or means something else. New fields may come "
        "at any time. A number that is not finite is `null`.",
        "",
    ]
    for command in RESULTS:
        kind = result_type(command)
        lines += [f"## {command}", "", *_table(kind), ""]
        for inner in dict.fromkeys(_inner(kind)):
            lines += [f"**{inner.__name__}**", "", *_table(inner), ""]
    return "\n".join(lines)


def _table(kind: type) -> list[str]:
    manual = _manual(kind)
    hints = get_type_hints(kind)
    rows = [
        f"| {code(field.name)} | {cell(_type(hints[field.name]))} | {cell(manual.get(field.name, ''))} |"
        for field in dataclasses.fields(kind)
    ]
    return [cell(_about(kind)), "", "| field | is | |", "|---|---|---|", *rows]


def _inner(kind: Any) -> Iterator[type]:
    """List the types within a type's fields, and within theirs."""
    for hint in get_type_hints(kind).values():
        for each in _types(hint):
            yield each
            yield from _inner(each)


def _types(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for inner in get_args(hint):
        yield from _types(inner)


def _about(kind: type) -> str:
    text = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
    found = ENTRY.search(text)
    return text[: found.start()].strip() if found else text


def _manual(kind: type) -> dict[str, str]:
    """Read `name, other : what they are.` of a docstring."""
    text = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
    found = list(ENTRY.finditer(text))
    ends = [*(each.start() for each in found[1:]), len(text)][: len(found)]
    told = {}
    for entry, end in zip(found, ends, strict=True):
        told |= dict.fromkeys(entry[1].split(", "), text[entry.end() : end].strip().rstrip("."))
    return told


def _type(hint: Any) -> str:
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Path": "path",
             "NoneType": "null", "dict": "object", "list": "list", "tuple": "list"}  # fmt: skip
    arguments = [each for each in get_args(hint) if each is not Ellipsis]
    name = getattr(hint, "__name__", str(hint))
    if name in ("list", "tuple", "Sequence") and arguments:
        return f"list of {_type(arguments[0])}"
    if name in ("dict", "Mapping") and arguments:
        return f"object of {_type(arguments[1])} by name"
    if arguments:
        return " or ".join(_type(each) for each in arguments)
    return names.get(name, name)

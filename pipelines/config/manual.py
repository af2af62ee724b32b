"""The manual of every setting, made of the classes that validate a file: types, bounds, defaults and their comments.

A comment behind a field, and those up to the next field, are the field's manual (pipelines.config.schema). What is code
stands between backticks. `mind config` prints it, and the site has it as pages.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel

from pipelines.config.load import PRESETS, available_presets

MISSING = dataclasses.MISSING
NAME = "NAME"  # stands for what the user names: a column, a setting to search
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value"}
KEY = re.compile(r"[a-z_]+: ")
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One line of the reference: `name` is dotted, as after ``--set``."""

    name: str
    accepts: str
    default: str
    manual: str


@dataclasses.dataclass(frozen=True)
class Part:
    """The settings of one section, and what its docstring says."""

    name: str
    text: str
    settings: list[Setting]


def parts(root: type, prefix: str = "") -> Iterator[Part]:
    """List the sections below `root`, each before the sections within it."""
    settings, inner = [], []
    manuals = _manuals(root)
    for name, annotation, default, bounds in _fields(root):
        section, between = _section_in(annotation)
        if section is None:
            said = "must be given" if default is MISSING else f"`{as_yaml(default)}`"
            settings.append(Setting(f"{prefix}{name}", _accepts(annotation, bounds), said, manuals.get(name, "")))
        else:
            inner.append((section, f"{prefix}{name}{between}.", manuals.get(name, "")))
    yield Part(prefix.rstrip("."), _own_text(root), settings)
    for section, below, manual in inner:
        first, *rest = parts(section, below)
        yield dataclasses.replace(first, text=" ".join(filter(None, (first.text, manual))))
        yield from rest


def _fields(section: type) -> Iterator[tuple[str, Any, Any, list[Any]]]:
    """List name, annotation, default and bounds of each field."""
    if issubclass(section, BaseModel):
        for name, field in section.model_fields.items():
            default = MISSING if field.is_required() else field.get_default(call_default_factory=True)
            yield name, field.annotation, default, field.metadata
    else:
        hints = get_type_hints(section, include_extras=True)
        for each in dataclasses.fields(section):  # type: ignore[arg-type]
            yield each.name, hints[each.name], each.default, []


def as_yaml(value: Any) -> str:
    """Write a value as a reader would write it in a configuration."""
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True, width=1000).replace("\n...\n", "").strip()


def _section_in(annotation: Any) -> tuple[type | None, str]:
    """Find the section class in ``FeatureTable | None`` or ``dict[str, Feature]``, and what lies between in a name."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        return annotation, ""
    for argument in get_args(annotation):
        section, between = _section_in(argument)
        if section is not None:
            return section, {dict: f".{NAME}", list: "[]"}.get(get_origin(annotation), between)
    return None, ""


def _accepts(annotation: Any, bounds: Sequence[Any] = ()) -> str:
    """Say in words which values a field takes."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [*arguments[1:], *(meta for each in arguments[1:] for meta in getattr(each, "metadata", ()))]
        return _accepts(arguments[0], [*inner, *bounds])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        said = [_accepts(each, bounds) for each in arguments if each is not type(None)]
        return " or ".join(said + (["`null`"] if type(None) in arguments else []))
    if origin in (list, tuple):
        if origin is list or Ellipsis in arguments:
            return f"list, each a {_accepts(arguments[0])}"
        return f"[{', '.join(map(_accepts, arguments))}]"
    if origin is dict:
        return f"`name: value` lines, each a {_accepts(arguments[1])}"
    limits = [f"{sign} {as_yaml(limit)}" for meta in bounds for key, sign in BOUNDS.items()
              if (limit := getattr(meta, key, None)) is not None]  # fmt: skip
    shapes = [f"as `{pattern}`" for meta in bounds if (pattern := getattr(meta, "pattern", None))]
    return " ".join([WORDS.get(annotation, "text"), ", ".join([*limits, *shapes])]).strip()


def _manuals(section: type) -> dict[str, str]:
    """Read the comments of a class's fields from its source, those of its parents too."""
    found: dict[str, str] = {}
    for each in reversed(section.__mro__[:-1]):
        if each is not BaseModel and (issubclass(each, BaseModel) or dataclasses.is_dataclass(each)):
            found |= _comments(textwrap.dedent(inspect.getsource(each)))
    return found


def _comments(source: str) -> dict[str, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    body = definition.body
    starts = [min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))]) for node in body]
    ends = [*starts[1:], (definition.end_lineno or 0) + 1]
    return {
        node.target.id: _joined([comments[line] for line in range(start, end) if line in comments])
        for node, start, end in zip(body, starts, ends, strict=True)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _joined(comments: list[str]) -> str:
    """Join a field's comments; one that begins with ``word:`` begins anew. A file says null where Python says None."""
    text = ""
    for comment in comments:
        ends = not text or text[-1] in ".,:;"
        text += f"{'; ' if KEY.match(comment) and not ends else ' '}{comment}"
    return re.sub(r"\bNone\b", "null", text.strip())


def _own_text(section: type) -> str:
    text = section.__dict__.get("__doc__") or ""
    return "" if text.startswith(f"{section.__name__}(") else inspect.cleandoc(text)  # dataclasses write one themselves


def preset_values() -> dict[str, dict[str, Any]]:
    """List what each preset sets, by setting and preset."""
    found: dict[str, dict[str, Any]] = {}
    for preset in available_presets():
        for section, values in (yaml.safe_load((PRESETS / f"{preset}.yaml").read_text()) or {}).items():
            for key, value in values.items():
                found.setdefault(f"{section}.{key}", {})[preset] = value
    return found

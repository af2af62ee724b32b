"""What is wrong with a configuration, in one line: who set it, the key, the value and what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipelines.config.redact import redact
from pipelines.config.schema import Config

Values = dict[str, Any]
Location = tuple[int | str, ...]

EXPECTED = {  # pydantic's error type -> what the reader may write
    "missing": "must be given",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text (in quotes)",
    "list_type": "must be a list, as [a, b]",
    "tuple_type": "must be a list, as [a, b]",
    "dict_type": "must be a section of `key: value` lines",
    "model_type": "must be a section of `key: value` lines",
    "dataclass_type": "must be a section of `key: value` lines",
    "greater_than_equal": "must be >= {ge}",
    "greater_than": "must be > {gt}",
    "less_than_equal": "must be <= {le}",
    "less_than": "must be < {lt}",
    "string_too_short": "must not be empty",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
}
UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One source of settings, and how a message names it: ``conf/x.yaml`` or ``--set``."""

    name: str
    values: Values


def explain(error: ValidationError, merged: Values, layers: Sequence[Layer], root: type[BaseModel] = Config) -> str:
    """Tell the first mistake in full, then how many more there are.

    Parameters
    ----------
    error : ValidationError
        What pydantic made of `merged`.
    merged : dict
        The settings that were validated.
    layers : sequence of Layer
        What `merged` was made of, lowest first; the second is the file.
    root : type
        The model that `merged` is of.

    Returns
    -------
    str
        For example ``conf/x.yaml: model.sigma=-1: must be >= 0 (and 2 more)``.
    """
    details = error.errors(include_url=False)
    places = {_known_part(item, merged) for item in details}  # a value of type `str | float` fails twice, at one place
    first = details[0]
    place = _known_part(first, merged)
    value = f"={show(first['input'])}"
    if first["type"] in UNKNOWN_KEY:
        value, message = "", f"unknown key, {_suggestion(place, root)}"
    elif first["type"] == "missing":
        value, message = "", EXPECTED["missing"]
    elif first["type"] == "value_error":  # from our own validators: "sigma=-1: must be >= 0", or free text
        value, message = "", str(first["ctx"]["error"])
        if named := re.fullmatch(r"([\w.]+)(=.*?): (must .*)", message):
            place, value, message = (*place, *named[1].split(".")), named[2], named[3]
    else:
        alternatives = [_allowed(item) for item in details if _known_part(item, merged) == place]
        message = " or ".join(dict.fromkeys(alternatives)).replace(" or must be", " or")

    source, is_set = _origin(place, layers)
    separator = " " if source == "--set" and is_set else ": "  # "--set a.b=c" reads as it was typed
    default = " (the default)" if value and not is_set else ""
    setting = f"{separator}{_dotted(place)}{value}{default}" if place else ""  # nowhere: it is about the whole
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return " ".join(redact(f"{source}{setting}: {message}{more}").split())


def _allowed(item: ErrorDetails) -> str:
    template = EXPECTED.get(item["type"])
    return template.format(**item.get("ctx", {})) if template else item["msg"]


def _known_part(item: ErrorDetails, merged: Values) -> Location:
    """Return the error's location without pydantic's labels of a union's members, which are no keys of ours."""
    return item["loc"] if item["type"] == "missing" else item["loc"][: _depth(merged, item["loc"])]


def _origin(place: Location, layers: Sequence[Layer]) -> tuple[str, bool]:
    """Find the highest layer that sets the deepest part of `place`, and whether that is all of it."""
    depths = [_depth(layer.values, place) for layer in layers]
    deepest = max(depths)
    if deepest == 0:
        return layers[1].name, False  # the file
    last = len(depths) - 1 - depths[::-1].index(deepest)
    return layers[last].name, deepest == len(place)


def _depth(values: Any, place: Location) -> int:
    """Count how many leading parts of `place` are there in the nested `values`."""
    for depth, part in enumerate(place):
        keys = values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()
        if part not in keys:
            return depth
        values = values[part]
    return len(place)


def _suggestion(place: Location, root: type[BaseModel]) -> str:
    *parents, key = place
    section = _section_at(parents, root)
    allowed = list(_fields(section)) if section else []
    near = difflib.get_close_matches(str(key), allowed, n=1)
    if near:
        return f"did you mean {_dotted((*parents, near[0]))}?"
    elsewhere = [name for name in _all_keys(root) if name.rpartition(".")[2] == key]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"allowed: {', '.join(allowed)}"


def _fields(section: type) -> dict[str, Any]:
    if issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    return get_type_hints(section)  # of a dataclass: its fields, as it has no other annotations


def _section_in(annotation: Any) -> type | None:
    """Find the section class within ``FeatureTable | None``, ``dict[str, Feature]`` or ``list[Exclusion]``."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section_in(inner))), None)


def _section_at(place: Sequence[int | str], root: type[BaseModel]) -> type | None:
    section: type | None = root
    for part in place:
        fields = _fields(section) if section else {}
        if part in fields:  # otherwise it is a name of the user's, as of a feature, within the same section
            section = _section_in(fields[str(part)])
    return section


def _all_keys(section: type, prefix: str = "") -> Iterator[str]:
    for name, annotation in _fields(section).items():
        inner = annotation if isinstance(annotation, type) else None
        if inner and _section_in(inner):
            yield from _all_keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _dotted(place: Sequence[int | str]) -> str:
    return ".".join(shortened(str(part)) for part in place)


def show(value: Any) -> str:
    """Write a value as the reader wrote it, shortened and without secrets."""
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    return show_text(repr(value)) if text is None else text


def show_text(text: str) -> str:
    """Write text of the reader's, shortened and without secrets."""
    return shortened(redact(text))


def shortened(text: str, most: int = 80) -> str:
    """Cut a text that is too long to be shown."""
    return text if len(text) <= most else f"{text[: most - 3]}..."

"""YAML as settings need it, from anybody: bounded in size, depth and expansion; a mistake is one line with its place.

Dates stay text (the log's time unit decides), ``1e-3`` is a number, a repeated key is an error. Of tags, which plain
settings need none of, only those of plain values are taken.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

MAX_BYTES = 256 * 2**10  # of a file; those in conf/ have 5 kB at most
MAX_DEPTH = 50
MAX_NODES = 100_000  # with every alias written out
MAX_CHARACTERS = 2**20  # likewise
MAX_DIGITS = 400  # of a number; float("1e308") has fewer
PLAIN = {
    yaml.ScalarNode: {
        f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "value", "merge")
    },
    yaml.SequenceNode: {"tag:yaml.org,2002:seq"},
    yaml.MappingNode: {"tag:yaml.org,2002:map"},
}
WORDS = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")  # that YAML reads as something else
_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")  # no file's name has them, and no terminal shows them
_PLAIN = re.compile(r"(\.{0,2}/|[A-Za-z_])[\w./-]*")  # names and paths; .5 and .nan are numbers
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def parse(text: str) -> Any:
    """Parse one YAML document.

    Raises
    ------
    yaml.YAMLError
        And nothing else, whatever the text is; `problem` tells it.
    """
    return yaml.load(text, _Loader)


def problem(error: yaml.YAMLError) -> str:
    """Say in one line what is wrong and, if it is known, in which line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: not valid YAML, {_short(error.problem)}"
    return f"not valid YAML, {_short(str(error))}"


def _short(text: str | None) -> str:
    words = " ".join(str(text).split())
    return words if len(words) <= 200 else f"{words[:197]}..."


def _wrong(node: yaml.Node, what: str) -> ConstructorError:
    return ConstructorError(None, None, what, node.start_mark)


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConstructorError(None, None, f"nested deeper than {MAX_DEPTH}", self.get_mark())
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_document(self) -> yaml.Node | None:
        node: yaml.Node | None = super().compose_document()
        if node is not None:
            nodes, characters = _expanded(node, {})
            if nodes > MAX_NODES or characters > MAX_CHARACTERS:
                raise _wrong(
                    node, f"too large: {nodes:,} values of {characters:,} characters, with aliases written out"
                )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in PLAIN[type(node)]:
            raise _wrong(node, f"the tag {_short(node.tag)} is not taken here; write the value without it")
        if node.tag in NUMBERS and len(node.value) > MAX_DIGITS:
            raise _wrong(node, f"a number of {len(node.value):,} characters")
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, OverflowError):
            raise _wrong(node, f"{node.value!r} is no {node.tag.rpartition(':')[2]}") from None
        if isinstance(value, str) and _UNSPEAKABLE.search(value):
            raise _wrong(node, "text with a NUL character or half of a surrogate pair")
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong(key, "a key must be plain text")
            if key.value in seen:
                raise _wrong(key, f"{key.value} appears twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _expanded(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Count the values below a node and their characters as if every alias were written out; each node is seen once."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise _wrong(node, "an alias within what it stands for")
        return found
    known[id(node)] = None
    nodes, characters = 1, 1
    if isinstance(node, yaml.ScalarNode):
        characters = len(node.value)
    else:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        for part in parts:
            more = _expanded(part, known)
            nodes, characters = nodes + more[0], characters + more[1]
    known[id(node)] = nodes, characters
    return nodes, characters


def quoted(value: Any) -> str:
    """Write a value as YAML reads it back.

    >>> quoted(["user id", "item", "no", ".5", 5])
    '["user id", item, "no", ".5", 5]'
    """
    if isinstance(value, list):
        return f"[{', '.join(map(quoted, value))}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    written = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(each if each.isprintable() else _escaped(each) for each in written)


def _escaped(character: str) -> str:
    """Write a character by its number, as text between double quotes may have it."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 2**8 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"


def in_a_comment(text: str, most: int) -> str:
    """Cut a text of anybody's to what a comment may hold, in one line.

    >>> in_a_comment("a\\nlong\\x00 one", 8)
    'a long\\ufffd '
    """
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else "\ufffd" for each in line[:most])

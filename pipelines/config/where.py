"""Read what a filter says, ``department != 'FUEL' and price < 5``, into conditions. No eval: a grammar of its own.

    any      := all ("or" all)*
    all      := one ("and" one)*
    one      := "not" one | "(" any ")" | column test | column
    test     := ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
              | ["not"] "in" "(" value ("," value)* ")"  |  "is" ["not"] "null"
    value    := 'text' | "text" | number | true | false
    column   := name | "any name" | `any name`

As in SQL, keywords are of any case, and what is compared with an empty value is neither true nor false. What the
columns are, and what they hold, is known where a filter meets a model: pipelines.lists.filters. Imports nothing heavy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn, TypeAlias

MAX_LETTERS = 100_000
MAX_DEPTH = 50
KEYWORDS = ("and", "or", "not", "in", "is", "null", "true", "false")

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True)
class Compare:
    """A column against a value."""

    column: str
    operator: Operator
    value: Value


@dataclass(frozen=True)
class OneOf:
    """A column's value is one of several; `negated`: none of them."""

    column: str
    values: tuple[Value, ...]
    negated: bool


@dataclass(frozen=True)
class IsNull:
    """A column is empty; `negated`: it is not."""

    column: str
    negated: bool


@dataclass(frozen=True)
class IsTrue:
    """A column of true and false, by itself."""

    column: str


@dataclass(frozen=True)
class Not:
    """What is not."""

    of: Condition


@dataclass(frozen=True)
class All:
    """Every one of several conditions."""

    of: tuple[Condition, ...]


@dataclass(frozen=True)
class Any:
    """At least one of several conditions."""

    of: tuple[Condition, ...]


Condition: TypeAlias = Compare | OneOf | IsNull | IsTrue | Not | All | Any


class _Token(NamedTuple):
    kind: str  # word, number, single, double, back, sign, end
    text: str
    at: int  # from 0


_TOKENS = re.compile(
    r"""(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])
    |(?P<word>[^\W\d]\w*(?:\.\w+)*)
    |'(?P<single>(?:[^']|'')*)'
    |"(?P<double>(?:[^"]|"")*)"
    |`(?P<back>[^`]+)`
    |(?P<sign><=|>=|<>|!=|==|[=<>(),])""",
    re.VERBOSE,
)
_SAME: dict[str, Operator] = {"==": "=", "<>": "!="}


def parse_where(text: str) -> Condition:
    """Read a filter.

    Raises
    ------
    ValueError
        In one line: what was found where, and what may stand there.

    Examples
    --------
    >>> parse_where("department != 'FUEL' and not (price > 4.5)")
    All(of=(Compare(column='department', operator='!=', value='FUEL'), Not(of=Compare(column='price', operator='>', \
value=4.5))))
    >>> parse_where("department is null or brand in ('a', 'b')").of[1]
    OneOf(column='brand', values=('a', 'b'), negated=False)
    """
    if len(text) > MAX_LETTERS:
        raise ValueError(
            f"{len(text):,} letters; at most {MAX_LETTERS:,}: give many ids as a file (deny, allow, stock)"
        )
    return _Parser(text).whole()


def columns_of(condition: Condition) -> list[str]:
    """Name the columns that a condition looks at, each once, in order."""
    if isinstance(condition, Not):
        return columns_of(condition.of)
    if isinstance(condition, All | Any):
        return list(dict.fromkeys(name for part in condition.of for name in columns_of(part)))
    return [condition.column]


class _Parser:
    """Recursive descent over the tokens; each method leaves `self.token` behind what it has read."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.depth = text, 0, 0
        self.token = self._read()

    def whole(self) -> Condition:
        found = self._any()
        if self.token.kind != "end":
            self._fail("'and', 'or' or the end")
        return found

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._took("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._took("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self) -> Condition:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} conditions within each other")
        if self._took("not"):
            found: Condition = Not(self._one())
        elif self._took_sign("("):
            found = self._any()
            self._expect(")")
        else:
            found = self._test(self._column())
        self.depth -= 1
        return found

    def _column(self) -> str:
        token = self.token
        if token.kind in ("double", "back") or (token.kind == "word" and token.text.lower() not in KEYWORDS):
            self.token = self._read()
            return token.text.replace('""', '"')
        return self._fail("the name of a column", hint=token.kind == "single" and "text comes after the comparison")

    def _test(self, column: str) -> Condition:
        if self._took("is"):
            negated = self._took("not")
            if not self._took("null"):
                self._fail("null" if negated else "null or not null")
            return IsNull(column, negated)
        negated = self._took("not")
        if self._took("in"):
            self._expect("(")
            values = [self._value()]
            while self._took_sign(","):
                values.append(self._value())
            self._expect(")")
            return OneOf(column, tuple(values), negated)
        if negated:
            self._fail("in")
        if self.token.kind == "sign" and self.token.text not in "(),":
            sign = self.token.text
            self.token = self._read()
            return Compare(column, _SAME.get(sign, sign), self._value())  # type: ignore[arg-type]
        if self.token.kind == "end" or self._is("and") or self._is("or") or self.token.text == ")":
            return IsTrue(column)
        return self._fail("=, !=, <, <=, >, >=, in (...), is null")

    def _value(self) -> Value:
        token = self.token
        if token.kind == "number":
            value: Value = int(token.text) if re.fullmatch(r"[-+]?\d+", token.text) else float(token.text)
        elif token.kind in ("single", "double"):
            quote = "'" if token.kind == "single" else '"'
            value = token.text.replace(quote * 2, quote)
        elif self._is("true") or self._is("false"):
            value = token.text.lower() == "true"
        elif self._is("null"):
            return self._fail("a value", hint="write: is null, or is not null")
        else:
            hint = token.kind == "word" and f"text stands in quotes: '{token.text}'"
            return self._fail("a number, a text in quotes, true or false", hint=hint)
        self.token = self._read()
        return value

    def _is(self, word: str) -> bool:
        return self.token.kind == "word" and self.token.text.lower() == word

    def _took(self, word: str) -> bool:
        if found := self._is(word):
            self.token = self._read()
        return found

    def _took_sign(self, sign: str) -> bool:
        if found := (self.token.kind == "sign" and self.token.text == sign):
            self.token = self._read()
        return found

    def _expect(self, sign: str) -> None:
        if not self._took_sign(sign):
            self._fail(f"'{sign}'")

    def _read(self) -> _Token:
        while self.place < len(self.text) and self.text[self.place].isspace():
            self.place += 1
        if self.place == len(self.text):
            return _Token("end", "", self.place)
        found = _TOKENS.match(self.text, self.place)
        if found is None:
            rest, at = self.text[self.place :], self.place + 1
            if rest[0] in "'\"`":
                raise ValueError(f"the quote at letter {at} has no end: {_cut(rest)}")
            raise ValueError(f"cannot read {_cut(rest)} at letter {at}; write like: department != 'FUEL' and price < 5")
        self.place = found.end()
        assert found.lastgroup is not None, "every alternative has a name"
        return _Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup))

    def _fail(self, expected: str, hint: str | bool = False) -> NoReturn:
        found = "nothing" if self.token.kind == "end" else _cut(self.token.text)
        more = f" ({hint})" if hint else ""
        raise ValueError(f"found {found} at letter {self.token.at + 1}, where {expected} must stand{more}")


def _cut(text: str) -> str:
    text = " ".join(text[:100].split())
    return text if len(text) <= 30 else text[:29] + "…"

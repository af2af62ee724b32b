"""A request for recommendations, from JSON or Python values to typed columns; every mistake in it is one line.

    {"history": [1029743, 995242], "n": 20, "profile": {"age": "35-44"}, "exclude": [], "only": null,
     "where": "department != 'FUEL'", "seen": "filter", "explain": false}

The endpoint, MLflow's model and `mind.load` all read requests here. A value is never printed whole and nothing is
nested deeper than a list in an object, so that no input costs more than its own length.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import pyarrow as pa

from pipelines.config.where import parse_where
from pipelines.dataset.vocabulary import FeatureEncoder
from pipelines.models.limits import DEFAULT_N, LIMITS, Limits, RequestError

Seen = Literal["filter", "keep"]

FIELDS = ("history", "n", "profile", "exclude", "only", "where", "seen", "explain")
SHOWN_LETTERS = 40


@dataclass(frozen=True)
class Request:
    """What one caller wants.

    history : raw ids of the behaviours, oldest first, of the model's type.
    n : length of the list.
    profile : raw value of each known feature that was given; None where missing.
    exclude : raw ids that may not be in the list.  only : those that may; None: all.
    where : a filter over the items' columns, as of `lists.where`; None: without one.
    seen : whether items of the history may; None: as the model was trained to be used.
    explain : whether to say why.
    cut : oldest behaviours that were dropped, as there were more than the limit.
    """

    history: pa.Array
    n: int = DEFAULT_N
    profile: Mapping[str, Any] = field(default_factory=dict)
    exclude: pa.Array | None = None
    only: pa.Array | None = None
    where: str | None = None
    seen: Seen | None = None
    explain: bool = False
    cut: int = 0


class RequestReader:
    """Reads requests to one model.

    Parameters
    ----------
    id_type : of the model's items.
    encoders : of its profile features.
    """

    def __init__(self, id_type: pa.DataType, encoders: Sequence[FeatureEncoder], limits: Limits = LIMITS) -> None:
        self.id_type, self.limits = id_type, limits
        self.encoders = {encoder.name: encoder for encoder in encoders}

    def read_json(self, body: bytes) -> Request:
        """Read the body of an HTTP request.

        Raises
        ------
        RequestError
            For anything that is not a request.
        """
        return self.read(parse_json(body, self.limits))

    def read(self, raw: Mapping[str, Any], *, cut: bool = False) -> Request:
        """Read a request's fields.

        Parameters
        ----------
        cut : a history that is too long is cut to its newest behaviours instead of being refused.

        Raises
        ------
        RequestError
            Naming the field, what was found and what is accepted.
        """
        self._refuse_unknown(raw, FIELDS, "field")
        if "history" not in raw:
            raise RequestError("history: is missing; a list of item ids, oldest first, [] if there are none")
        history = self._list(raw["history"], "history")
        dropped = max(0, len(history) - self.limits.history) if cut else 0
        return Request(
            history=self.ids(history[dropped:], "history", self.limits.history),
            n=self._n(raw.get("n", DEFAULT_N)),
            profile=self.profile(raw.get("profile")),
            exclude=self._optional_ids(raw.get("exclude"), "exclude"),
            only=self._optional_ids(raw.get("only"), "only"),
            where=self._where(raw.get("where")),
            seen=_choice(raw.get("seen"), "seen", ("filter", "keep")),
            explain=_flag(raw.get("explain", False), "explain"),
            cut=dropped,
        )

    def ids(self, values: Sequence[Any], name: str, most: int) -> pa.Array:
        """Bring raw ids to the model's type, (len(values),)."""
        if len(values) > most:
            raise RequestError(f"{name}: {len(values):,} ids: must be at most {most:,}", 413)
        text = pa.types.is_string(self.id_type)
        read = _text if text else integer
        wanted = "text, as item ids are" if text else "integers, as item ids are"
        found = [read(value) for value in values]
        if None in found:
            place = found.index(None)
            raise RequestError(f"{name}[{place}]={said(values[place])}: ids must be {wanted}")
        try:
            return pa.array(found, self.id_type)
        except (pa.ArrowInvalid, OverflowError):
            raise RequestError(f"{name}: an id is out of range: ids must be {self.id_type}") from None

    def profile(self, raw: Any) -> dict[str, Any]:
        """Check the raw values of profile features; those of a list are a list."""
        if raw is None:
            return {}
        if not isinstance(raw, Mapping):
            raise RequestError(f"profile={said(raw)}: must be an object of {self._features()}")
        self._refuse_unknown(raw, tuple(self.encoders), "profile feature")
        return {name: self._value(self.encoders[name], value) for name, value in raw.items()}

    def _value(self, encoder: FeatureEncoder, value: Any) -> Any:
        where = f"profile.{encoder.name}"
        if encoder.kind != "multi" or value is None:
            return scalar(encoder, value, where)
        if isinstance(value, str) and encoder.separator is not None:
            value = value.split(encoder.separator)
        values = self._list(value, where)
        if len(values) > self.limits.values:
            raise RequestError(f"{where}: {len(values):,} values: must be at most {self.limits.values:,}", 413)
        return [scalar(encoder, each, f"{where}[{place}]") for place, each in enumerate(values)]

    def _n(self, value: Any) -> int:
        number = None if isinstance(value, str) else integer(value)
        if number is None or not 1 <= number <= self.limits.n:
            raise RequestError(f"n={said(value)}: must be an integer from 1 to {self.limits.n:,}")
        return number

    def _optional_ids(self, value: Any, name: str) -> pa.Array | None:
        return None if value is None else self.ids(self._list(value, name), name, self.limits.items)

    def _where(self, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise RequestError(f'where={said(value)}: must be text, such as "price < 5"')
        if len(value) > self.limits.where:
            raise RequestError(f"where: {len(value):,} letters: must be at most {self.limits.where:,}", 413)
        try:
            parse_where(value)
        except ValueError as error:
            raise RequestError(f"where: {_one_line(str(error))}") from None
        return value

    def _list(self, value: Any, name: str) -> Sequence[Any]:
        if isinstance(value, (list, tuple)):
            return value
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
            return list(value)  # an array of NumPy, Arrow, pandas
        raise RequestError(f"{name}={said(value)}: must be a list")

    def _features(self) -> str:
        return f"profile features: {', '.join(self.encoders) or 'none: the model has no profile'}"

    def _refuse_unknown(self, raw: Mapping[str, Any], known: Sequence[str], what: str) -> None:
        if unknown := [key for key in raw if key not in known]:
            accepted = ", ".join(known) if known else "none: the model has no profile"
            raise RequestError(f"{what} {said(unknown[0])}: unknown; accepted: {accepted}")


def parse_json(body: bytes, limits: Limits = LIMITS) -> dict[str, Any]:
    """Parse a body that must be one JSON object.

    Raises
    ------
    RequestError
        400 for what is no JSON, 413 for what is too long.
    """
    if len(body) > limits.body:
        raise RequestError(f"body: {len(body):,} bytes: must be at most {limits.body:,}", 413)
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_json, object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise RequestError("body: must be JSON in UTF-8", 400) from None
    except json.JSONDecodeError as error:
        raise RequestError(f"body: broken JSON: {error.msg} at line {error.lineno} column {error.colno}", 400) from None
    except RecursionError:
        raise RequestError("body: nested too deep: a request is an object of lists and values", 400) from None
    except ValueError:  # an integer of thousands of digits
        raise RequestError("body: a number is too long", 400) from None
    if not isinstance(found, dict):
        raise RequestError(f"body={said(found)}: must be a JSON object with {', '.join(FIELDS)}")
    return found


def scalar(encoder: FeatureEncoder, value: Any, where: str) -> Any:
    """Bring one profile value to the type that its feature had in the dataset; None where it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(type(value).__name__) == "NaTType":
        return None
    if encoder.values is None:  # numeric, bucket
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not _finite(number):
            raise RequestError(f"{where}={said(value)}: must be a number")
        return float(number)
    kind = encoder.values.type
    found: Any
    try:
        if pa.types.is_string(kind):
            found = _text(value)
        elif pa.types.is_integer(kind):
            found = integer(value)
        elif pa.types.is_boolean(kind):
            found = bool(value) if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool") else None
        elif pa.types.is_floating(kind):
            whole = isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value)
            found = None if whole else float(value)
        elif pa.types.is_temporal(kind) and isinstance(value, (bool, int, float)):
            found = None
        else:  # times as ISO text or Python's own, and what else a table may hold: as Arrow reads it
            found = (pa.scalar(value).cast(kind) if isinstance(value, str) else pa.scalar(value, kind)).as_py()
        if found is not None:
            pa.scalar(found, kind)
            return found
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    raise RequestError(f"{where}={said(value)}: must be {kind}, as in the dataset")


def said(value: Any) -> str:
    """Write a value of a request for an error: short, and never its inside.

    >>> said("x" * 100), said([[1]]), said(None), said(1.5)
    ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'", 'a list', 'null', '1.5')
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN_LETTERS else value[:SHOWN_LETTERS] + "...")
    if isinstance(value, int):
        return str(value) if abs(value) < 10**SHOWN_LETTERS else "a number of many digits"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return "a list"
    return f"a value of type {type(value).__name__}"


def integer(value: Any) -> int | None:
    """Read an integer, also of NumPy, as a whole float, or as the text that an integer is written as."""
    if hasattr(value, "item") and not isinstance(value, (list, Mapping)):
        value = value.item() if getattr(value, "ndim", 0) == 0 else value
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):  # how pandas holds integers beside missing ones
        return int(value) if value.is_integer() and abs(value) <= 2**53 else None
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isascii():
        digits = value.removeprefix("-")
        return int(value) if digits.isdigit() and (digits == "0" or digits[0] != "0") and value != "-0" else None
    return None


def _text(value: Any) -> str | None:
    """Read text that can be written as UTF-8; an integer is the text that it is written as."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
            return None
        return value
    number = None if isinstance(value, float) else integer(value)
    return None if number is None or abs(number) >= 2**64 else str(number)


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond any float
        return False


def _one_line(text: str) -> str:
    """Bring a message to one short line that any log and JSON can hold."""
    return " ".join(text.encode("ascii", "backslashreplace").decode().split())[:300]


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{name}={said(value)}: must be true or false")
    return value


def _choice(value: Any, name: str, accepted: tuple[Any, ...]) -> Any:
    if value is not None and value not in accepted:
        raise RequestError(f"{name}={said(value)}: must be one of {', '.join(accepted)}")
    return value


def _no_json(name: str) -> NoReturn:
    raise RequestError(f"body: broken JSON: {name} is no number of JSON", 400)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        raise RequestError(f"body: {said(times.most_common(1)[0][0])} stands twice in an object", 400)
    return found

"""What stands for a missing value: the words that programs write for one, and what `null_values:` adds. Pure Arrow.

A null that was written as text is a user like any other to whoever does not know the word: one with a million events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.log.ids import as_array

Word = str | int | float


def without_nulls(column: Any, words: Sequence[Word]) -> pa.Array:
    """Make null what stands for a missing value.

    Text is compared without the blanks around it, and what is blank is always missing. Numbers are compared with those
    words that are numbers.

    >>> without_nulls(pa.array(["NA", " ", "Nadia", "-1"]), ["NA", -1]).to_pylist()
    [None, None, 'Nadia', None]
    >>> without_nulls(pa.array([7, -1]), ["NA", -1]).to_pylist()
    [7, None]
    """
    array = as_array(column)
    if pa.types.is_string(array.type):
        return _text_without(array, words)
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        numbers = _of_type(words, array.type)
        if len(numbers):
            return pc.if_else(pc.is_in(array, value_set=numbers), pa.scalar(None, array.type), array)
    return array


def _text_without(array: pa.Array, words: Sequence[Word]) -> pa.Array:
    nulls = pa.array(["", *map(_written, words)], pa.string())
    # most columns hold no blank beside a value: the copy without them is made of those that may
    trimmed = pc.utf8_trim_whitespace(array)
    found = pc.is_in(trimmed, value_set=nulls)
    if not pc.any(found, min_count=0).as_py():
        return array
    return pc.if_else(found, pa.scalar(None, pa.string()), array)


def _written(word: Word) -> str:
    """Write a word as a text file has it: 999 and 999.0 are 999."""
    return str(int(word)) if isinstance(word, float) and word.is_integer() and abs(word) < 1e15 else str(word)


def _of_type(words: Iterable[Word], kind: pa.DataType) -> pa.Array:
    """Return the words that are values of the type."""
    found = []
    for word in words:
        if isinstance(word, str):
            continue
        try:
            found.append(pa.scalar(word, pa.float64() if isinstance(word, float) else pa.int64()).cast(kind))
        except (pa.ArrowInvalid, OverflowError):
            continue
    return pa.array([each.as_py() for each in found], kind)

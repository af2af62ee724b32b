"""Identifiers of users and items, whatever the caller uses: integers, text or UUIDs.

One canonical type per column (int64, uint64 or string), a hash that is the same on every machine, and ranks that keep
the order of the ids. Pure Arrow and NumPy; no Ray.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mind_core.splitmix import FIRST, GOLDEN, SECOND
from pipelines.errors import UserError

UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

# Text that means a number and nothing else: no leading zeros or plus, so that "007" and "7" stay two ids.
WHOLE_NUMBER = r"^(0|-?[1-9][0-9]{0,17})$"
# The same with a fraction of nothing: what pandas makes of integers in a column where some are missing.
WHOLE_DECIMAL = r"^(0|-?[1-9][0-9]{0,17})(\.0*)?$"
EXACT_BITS = {pa.float16(): 11, pa.float32(): 24, pa.float64(): 53}  # whole numbers below 2^bits have a value each


def as_array(column: Any) -> pa.Array:
    """Make one contiguous array of a column, chunked or not, with dictionaries decoded and short offsets."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # combine_chunks keeps several chunks when text overflows 2 GiB
        column = pa.concat_arrays(column.chunks)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # Arrow cannot take from lists of views
    plain = pa.string() if pa.types.is_large_string(column.type) else without_text_views(column.type)
    return column if plain == column.type else column.cast(plain)


def without_text_views(kind: pa.DataType) -> pa.DataType:
    """Return a type of lists with plain text in place of text as Polars keeps it; any other type as it is.

    >>> without_text_views(pa.large_list(pa.list_(pa.string_view())))
    LargeListType(large_list<item: list<item: string>>)
    """
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(without_text_views(kind.value_type)))
    return kind


def canonical(column: Any, where: str) -> pa.Array:
    """Bring ids to int64, uint64 or string; what is missing (null, NaN, empty text) becomes null.

    >>> canonical(pa.array([1.0, float("nan")]), "log.csv: user").to_pylist()
    [1, None]

    Parameters
    ----------
    column
        Arrow array of integers, whole floats or decimals, text (also as bytes in UTF-8) or 16-byte UUIDs.
    where
        Names the file and column in an error.

    Raises
    ------
    UserError
        For any other type, for numbers with a fraction or above 2^63, for floating-point numbers so large that several
        integers share one, or for bytes that are no text.
    """
    array = as_array(column)
    kind = array.type
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16:
        return _uuid_text(array)
    if _is_bytes(kind):  # how some writers of Parquet store text
        try:
            array = array.cast(pa.string())
        except pa.ArrowInvalid:
            raise UserError(f"{where}: bytes that are no UTF-8 text; write ids as text, e.g. in hex") from None
        kind = array.type
    if pa.types.is_string(kind):
        return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
    if pa.types.is_uint64(kind):
        return array
    if pa.types.is_integer(kind):
        return array.cast(pa.int64())
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.int64())
    if pa.types.is_floating(kind):  # integers with gaps, as pandas writes them
        array = array.cast(pa.float64())
        array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, pa.float64()))
        limit = 2 ** EXACT_BITS[kind]
        largest = pc.max(pc.abs(array)).as_py() or 0
        if largest >= limit:
            raise UserError(
                f"{where}: holds {largest:.0f} as {kind}, in which ids from {limit:,} on are not exact: several become "
                "one; write ids as integers or text"
            )
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        try:
            return array.cast(pa.int64())
        except pa.ArrowInvalid:
            raise UserError(f"{where}: ids with a fraction or above 2^63; ids must be integers or text") from None
    raise UserError(f"{where}: type {kind} cannot be an id; ids must be integers, text or UUIDs")


def _is_bytes(kind: pa.DataType) -> bool:
    """Say whether values are bytes, of whatever layout."""
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _uuid_text(array: pa.Array) -> pa.Array:
    """16-byte values as the usual 36 characters, so that a request can name them."""
    filled = array.fill_null(bytes(16))
    start = filled.offset * 16
    raw = np.frombuffer(filled.buffers()[1], np.uint8)[start : start + 16 * len(filled)].reshape(-1, 16)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    pairs = np.stack([digits[raw >> 4], digits[raw & 15]], axis=-1).reshape(-1, 32)
    dash = np.full((len(raw), 1), ord("-"), np.uint8)
    cut = np.split(pairs, [8, 12, 16, 20], axis=1)
    text = np.concatenate([cut[0], *(part for piece in cut[1:] for part in (dash, piece))], axis=1)
    values = pa.array(np.ascontiguousarray(text).view("S36").ravel(), pa.binary()).cast(pa.string())
    return pc.if_else(pc.is_valid(array), values, pa.scalar(None, pa.string()))


def is_whole_numbers(text: pa.Array, pattern: str = WHOLE_NUMBER) -> bool:
    """Say whether every value of a text column is the plain decimal form of an integer.

    pattern : WHOLE_DECIMAL takes 7.0 for one.
    """
    first = text.slice(0, 1000)  # most columns that hold other values begin with one
    return all(
        pc.all(pc.match_substring_regex(values, pattern), min_count=0).as_py() for values in (first, text.slice(1000))
    )


def whole(text: Any) -> pa.Array:
    """Read text of which `is_whole_numbers` is true, by either pattern, as int64."""
    return as_array(pc.replace_substring_regex(text, r"\.0*$", "")).cast(pa.int64())


def as_kind(ids: Any, kind: pa.DataType) -> pa.Array:
    """Bring ids of one canonical type to another, which holds them."""
    array = as_array(ids)
    if pa.types.is_string(array.type) and pa.types.is_integer(kind):
        return whole(array).cast(kind)
    return array.cast(kind)


def common_type(types: set[pa.DataType]) -> pa.DataType:
    """Find the one type that ids of all these canonical types are cast to: text wins, as every id can be written."""
    return next(iter(types)) if len(types) == 1 else pa.string()


def hash64(ids: pa.Array, seed: int = 0) -> UInt64s:
    """Hash ids without nulls, (n,) uint64: the same for the same id and seed on every machine and version.

    h(id, seed) = mix(x ^ mix(seed)); x is the integer itself or FNV-1a of the text, mix the finaliser of SplitMix64.

    >>> hash64(pa.array([1, 2])).tolist(), hash64(pa.array(["a"]), seed=1).tolist()
    ([627405149472732430, 15549969042648332857], [2173342480884055955])
    """
    state = _fnv1a(ids) if pa.types.is_string(ids.type) else ids.to_numpy(zero_copy_only=False).view(np.uint64)
    start = _mix(np.array([seed], np.int64).view(np.uint64))
    return _mix(state ^ start)


def _mix(x: UInt64s) -> UInt64s:
    """Apply the finaliser of SplitMix64: neighbouring integers land far apart. In torch: mind_core.shuffle."""
    x = x + np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(FIRST)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(SECOND)
    return x ^ (x >> np.uint64(31))


def _fnv1a(text: pa.Array) -> UInt64s:
    """FNV-1a of each value's UTF-8 bytes; one vectorised step per byte position."""
    bounds = np.frombuffer(text.buffers()[1], np.int32)[text.offset : text.offset + len(text) + 1].astype(np.int64)
    data = np.frombuffer(text.buffers()[2] or b"", np.uint8)
    state = np.full(len(text), 0xCBF29CE484222325, np.uint64)
    lengths = np.diff(bounds)
    alive = np.flatnonzero(lengths > 0)
    place = 0
    while len(alive):
        state[alive] = (state[alive] ^ data[bounds[alive] + place]) * np.uint64(0x100000001B3)
        place += 1
        alive = alive[lengths[alive] > place]
    return state


def rank(ids: pa.Array) -> tuple[npt.NDArray[np.int32], pa.Array]:
    """Give ids without nulls codes that sort as they do, (n,) int32; and the distinct ids in ascending order.

    >>> codes, distinct = rank(pa.array(["b", "a", "b"]))
    >>> codes.tolist(), distinct.to_pylist()
    ([1, 0, 1], ['a', 'b'])
    """
    encoded = ids.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place[encoded.indices.to_numpy()], encoded.dictionary.take(pa.array(order))


class Lookup:
    """The places of ids in a list of distinct ids."""

    def __init__(self, ids: pa.Array):
        self.ids = ids
        if not pa.types.is_string(ids.type):  # sorted once: a hash table would be made anew at every call
            values = ids.to_numpy(zero_copy_only=False)
            self.order = np.argsort(values)
            self.ascending = values[self.order]

    def __len__(self) -> int:
        return len(self.ids)

    def places(self, ids: pa.Array) -> Int64s:
        """Find the place of each id, (n,), -1 where there is none; fastest where `ids` ascend.

        >>> Lookup(pa.array([7, 3])).places(pa.array([3, 5, 7])).tolist()
        [1, -1, 0]
        """
        if pa.types.is_string(self.ids.type):
            return np.asarray(pc.index_in(ids, value_set=self.ids).fill_null(-1).to_numpy(), np.int64)
        if not len(self.ids):
            return np.full(len(ids), -1)
        wanted = ids.to_numpy(zero_copy_only=False)
        found = np.searchsorted(self.ascending, wanted).clip(max=len(self.ascending) - 1)
        return np.where(self.ascending[found] == wanted, self.order[found], -1)

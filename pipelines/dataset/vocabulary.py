"""From values to embedding rows: item ids, and every feature of items and users.

The same code encodes at preprocessing and at serving, so it needs no Ray. Rows of a feature: 0 padding (never stored),
1 unknown (rare or never seen), 2 missing, values from 3. Rows of items: 0 padding, 1 unknown, items from 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mind_core.special_rows import FIRST_ITEM, FIRST_VALUE, MISSING, UNKNOWN
from pipelines.config.schema import NULL_WORDS, Feature
from pipelines.dataset.splits import first_occurrences
from pipelines.errors import UserError
from pipelines.log.ids import as_array
from pipelines.log.normalise import as_text, text_numbers
from pipelines.log.null_words import without_nulls

FeatureKind = Literal["categorical", "multi", "numeric", "bucket"]
Floats = npt.NDArray[np.float64]

FENCE = 100
LARGEST = 8e307  # the difference of two such numbers is a number
LARGEST_SCALED = 1e6  # standard deviations
HOW_NUMBERS = "12.99, without sign or thousands, or set kind: categorical"


@dataclass(frozen=True)
class FeatureEncoder:
    """How one column becomes model input; all that serving needs to do it again."""

    name: str
    kind: FeatureKind
    separator: str | None = None  # multi: of values stored as text
    values: pa.Array | None = None  # categorical, multi: value of row FIRST_VALUE + i
    counts: pa.Array | None = None  # int64, of the rows FIRST_VALUE + i (bucket too)
    mean: float | None = None  # numeric
    std: float | None = None  # numeric, of the population; 1 where all values are equal
    edges: tuple[float, ...] | None = None  # bucket: ascending; bucket i holds edges[i - 1] <= x < edges[i]
    low: float | None = None  # numeric: what lies beyond counts as this, see `fences`; None: all values are near
    high: float | None = None

    @property
    def size(self) -> int:
        """Embedding rows, the three special ones included; 0 for a numeric feature."""
        if self.kind == "numeric":
            return 0
        if self.edges is not None:
            return FIRST_VALUE + len(self.edges) + 1
        assert self.values is not None, "a categorical or multi feature has values"
        return FIRST_VALUE + len(self.values)

    def encode(self, column: Any) -> pa.Array:
        """Encode raw values.

        Returns
        -------
        int32 rows (categorical, bucket), list<int32> rows without repeats and never empty (multi), or float32
        standardised values with null where missing (numeric).
        """
        array = as_array(column)
        if self.kind == "multi":
            return self._encode_lists(array)
        if self.kind == "categorical":
            return self._rows(array)
        numbers = numbers_of(array, self.name)
        present = ~np.isnan(numbers)
        if self.kind == "numeric":
            assert self.mean is not None, "a numeric feature has a mean"
            assert self.std is not None, "a numeric feature has a std"
            if self.low is not None and self.high is not None:
                numbers = numbers.clip(self.low, self.high)
            with np.errstate(over="ignore"):
                scaled = (np.where(present, numbers, self.mean) - self.mean) / self.std
            return pa.array(scaled.clip(-LARGEST_SCALED, LARGEST_SCALED).astype(np.float32), mask=~present)
        rows = FIRST_VALUE + np.searchsorted(np.array(self.edges), numbers, side="right")
        return pa.array(np.where(present, rows, MISSING).astype(np.int32))

    def table(self) -> pa.Table | None:
        """Return the vocabulary: columns index (int32), value, count (int64); None for a numeric feature."""
        if self.kind == "numeric":
            return None
        values = self.values if self.edges is None else pa.array(_bucket_names(self.edges), pa.string())
        return pa.table(
            {
                "index": pa.array(np.arange(FIRST_VALUE, self.size, dtype=np.int32)),
                "value": values,
                "count": self.counts,
            }
        )

    def after(self, old: FeatureEncoder) -> FeatureEncoder:
        """Put own new values after the rows of an older encoder; scales and edges are the old ones.

        A value that has become rare keeps its row.
        """
        if self.values is None or old.values is None:
            return old
        assert self.counts is not None, "a feature of values has counts"
        kind = self.values.type if self.values.type == old.values.type else pa.string()
        before, now = old.values.cast(kind), self.values.cast(kind)
        values = pa.concat_arrays([before, now.filter(pc.invert(pc.is_in(now, value_set=before)))])
        counts = self.counts.take(pc.index_in(values, value_set=now)).fill_null(0)
        return replace(self, values=values, counts=counts)

    def _rows(self, array: pa.Array) -> pa.Array:
        assert self.values is not None, "a categorical or multi feature has values"
        array, values = _plain(_blank_to_null(array)), self.values
        if array.type != values.type:  # a request may say 25 where the table said "25"
            array, values = as_text(array), as_text(values)
        place = pc.add(pc.index_in(array, value_set=values), FIRST_VALUE)
        rows = pc.if_else(pc.is_null(array), MISSING, pc.fill_null(place, UNKNOWN))
        return as_array(rows.cast(pa.int32()))

    def _encode_lists(self, array: pa.Array) -> pa.Array:
        lists = present_lists(array, self.separator, self.name)
        encoded = pa.ListArray.from_arrays(lists.offsets, self._rows(lists.values))
        length = np.diff(encoded.offsets.to_numpy())
        # an empty list becomes [MISSING]: put one into the flat values at its place
        offsets = np.concatenate([[0], np.cumsum(np.maximum(length, 1))])
        flat = np.full(offsets[-1], MISSING, np.int32)
        row = np.repeat(np.arange(len(length)), length)
        flat[offsets[row] + _places(length)] = encoded.values.to_numpy()
        return first_occurrences(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat)))


def fit(name: str, feature: Feature, column: Any) -> FeatureEncoder:
    """Learn an encoder from the column over the vocabulary's items (or users); the order of rows does not matter.

    Raises
    ------
    UserError
        If the column's type does not suit the feature's kind.
    """
    array = as_array(column)
    if feature.kind in ("numeric", "bucket"):
        numbers = np.sort(numbers_of(array, name))
        numbers = numbers[~np.isnan(numbers)]
        if not len(numbers) and (wrong := no_numbers(array)) is not None:
            raise UserError(f"feature {name!r}: no value is a number, such as {wrong[1]!r}; write {HOW_NUMBERS}")
        if feature.kind == "numeric":
            low, high = fences(numbers) or (None, None)
            mean, std = _scale(numbers if low is None else numbers.clip(low, high))
            return FeatureEncoder(name, "numeric", mean=mean, std=std or 1.0, low=low, high=high)
        inner = np.linspace(0, 1, feature.buckets + 1)[1:-1]
        edges = np.unique(np.quantile(numbers, inner)) if len(numbers) else np.array([])
        counts = np.bincount(np.searchsorted(edges, numbers, side="right"), minlength=len(edges) + 1)
        return FeatureEncoder(
            name, "bucket", counts=pa.array(counts, pa.int64()), edges=tuple(float(edge) for edge in edges)
        )
    if feature.kind == "multi":
        lists = present_lists(array, feature.separator, name)
        array = lists.values.slice(lists.offsets[0].as_py(), lists.offsets[-1].as_py() - lists.offsets[0].as_py())
        encoded = array.dictionary_encode()
        codes = pa.ListArray.from_arrays(lists.offsets, encoded.indices)
        array = encoded.dictionary.take(first_occurrences(codes).values)  # a value counts once per item
    elif pa.types.is_nested(array.type):
        _refuse_objects(array.type, name)
        raise UserError(f"feature {name!r}: kind categorical, but the column holds {array.type}; set kind: multi")
    counted = _plain(_blank_to_null(array)).drop_null().value_counts()
    table = pa.table({"value": counted.field("values"), "count": counted.field("counts")})
    table = table.filter(pc.greater_equal(table["count"], feature.min_count))
    table = table.sort_by([("count", "descending"), ("value", "ascending")])
    return FeatureEncoder(name, feature.kind, feature.separator, as_array(table["value"]), as_array(table["count"]))


def build_items(counts: pa.Table, cold: pa.Array | None = None) -> pa.Table:
    """Make an item vocabulary: columns index (int32, from 2), id, count; the most frequent first, then by id.

    cold : ids without an event; they come last.
    """
    if cold is not None:
        counts = pa.concat_tables([counts, pa.table({"id": cold, "count": np.zeros(len(cold), np.int64)})])
    ordered = counts.sort_by([("count", "descending"), ("id", "ascending")])
    index = np.arange(FIRST_ITEM, FIRST_ITEM + ordered.num_rows, dtype=np.int32)
    return pa.table({"index": index, "id": as_array(ordered["id"]), "count": as_array(ordered["count"])})


def grow_items(vocabulary: pa.Table, change: pa.Table, cold: pa.Array | None) -> pa.Table:
    """Change an item vocabulary's counts: every item keeps its row, new ones come after as in `build_items`.

    change : columns id, count (to be added, possibly negative).
    """
    ids = as_array(vocabulary["id"])
    place = pc.index_in(as_array(change["id"]), value_set=ids)
    known = pc.is_valid(place)
    counts = vocabulary["count"].to_numpy().copy()
    counts[place.drop_null().to_numpy()] += change["count"].filter(known).to_numpy()
    new = change.filter(pc.and_(pc.invert(known), pc.greater(change["count"], 0)))
    if cold is not None:
        there = pa.concat_arrays([ids, as_array(new["id"]).cast(ids.type)])
        cold = cold.filter(pc.invert(pc.is_in(cold, value_set=there)))
    added = build_items(new.select(["id", "count"]), cold)
    index = np.arange(FIRST_ITEM, FIRST_ITEM + len(counts) + added.num_rows, dtype=np.int32)
    all_ids = pa.concat_arrays([ids, as_array(added["id"]).cast(ids.type)])
    return pa.table({"index": index, "id": all_ids, "count": np.concatenate([counts, added["count"].to_numpy()])})


def encode_columns(encoders: list[FeatureEncoder], table: pa.Table, prefix: str) -> dict[str, pa.Array]:
    """Encode each feature's column as ``<prefix>_<name>``; a column that `table` lacks is missing in every row."""
    present = set(table.column_names)
    return {
        f"{prefix}_{encoder.name}": encoder.encode(
            table[encoder.name] if encoder.name in present else pa.nulls(table.num_rows)
        )
        for encoder in encoders
    }


def numbers_of(column: Any, name: str) -> Floats:
    """Read values as float64, none beyond LARGEST; missing, infinite and unparseable ones are NaN."""
    return all_numbers_of(column, name).clip(-LARGEST, LARGEST)


def all_numbers_of(column: Any, name: str) -> Floats:
    """Read values as float64; missing, infinite and unparseable ones are NaN."""
    array = as_array(column)
    if pa.types.is_string(array.type):
        array = text_numbers(array)
    try:
        numbers = np.array(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        _refuse_objects(array.type, name)
        kind = "multi" if pa.types.is_nested(array.type) else "categorical"
        raise UserError(f"feature {name!r}: type {array.type} is no number; set kind: {kind}") from None
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def no_numbers(column: Any) -> tuple[int, str] | None:
    """Count the values of a text column that are given and no numbers, with one of them; None if there is none."""
    array = as_array(column)
    if not pa.types.is_string(array.type):
        return None
    given = without_nulls(array, NULL_WORDS)
    wrong = given.filter(pc.and_(pc.is_null(text_numbers(given)), pc.is_valid(given)))
    return (len(wrong), wrong[0].as_py()) if len(wrong) else None


def fences(numbers: Floats) -> tuple[float, float] | None:
    """Find how far values may lie out: FENCE times the middle half's width beyond it; None where none lies further.

    A sentinel such as 1e300 would else set the scale, and all other values would be equal. Where half of the values or
    more are equal, the distinct ones count.

    numbers : ascending, finite.

    >>> fences(np.array([1.0, 2.0, 3.0, 4.0, 1e300]))
    (-198.0, 204.0)
    """
    for values in (numbers, np.unique(numbers)):
        if len(values) < 4:
            return None
        low = float(np.quantile(values, 0.25, method="higher"))
        high = float(np.quantile(values, 0.75, method="lower"))
        if high > low:
            first, last = max(low - FENCE * (high - low), -LARGEST), min(high + FENCE * (high - low), LARGEST)
            return (first, last) if numbers[0] < first or numbers[-1] > last else None
    return None


def _scale(numbers: Floats) -> tuple[float, float]:
    """Mean and standard deviation, (0, 0) of nothing; squares of any numbers fit."""
    if not len(numbers):
        return 0.0, 0.0
    largest = float(np.abs(numbers).max())
    unit = largest if largest > 1e150 else 1.0
    return float((numbers / unit).mean() * unit), float((numbers / unit).std() * unit)


def present_lists(array: pa.Array, separator: str | None, name: str) -> pa.ListArray:
    """Lists without null or blank members; a null list becomes empty. Text is split at `separator`."""
    if pa.types.is_string(array.type):
        if separator is None:
            raise UserError(f"feature {name!r}: kind multi on a text column needs separator:")
        array = pc.split_pattern(array, separator)
    if pa.types.is_null(array.type):
        array = array.cast(pa.list_(pa.string()))
    _refuse_objects(array.type, name)
    if not is_list_or_map(array.type):
        raise UserError(f"feature {name!r}: kind multi, but the column holds {array.type}; set kind: categorical")
    flat, row = array, np.arange(len(array))
    while is_list_or_map(flat.type):  # lists of lists too: all that is within is a value
        row = row[pc.is_valid(flat).to_numpy(zero_copy_only=False)]
        flat = plain_lists(flat.drop_null())
        row = row[pc.list_parent_indices(flat).to_numpy()]
        flat = as_array(flat.flatten())
    flat = _plain(flat)
    if pa.types.is_string(as_array(flat).type):
        flat = pc.utf8_trim_whitespace(as_array(flat))
    flat = _blank_to_null(as_array(flat))
    present = pc.is_valid(flat).to_numpy(zero_copy_only=False)
    length = np.bincount(row[present], minlength=len(array))
    offsets = np.concatenate([[0], np.cumsum(length)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat.drop_null())


def is_list_or_map(kind: pa.DataType) -> bool:
    """Say whether values of a type hold several values, however they are laid out."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
             pa.types.is_large_list_view, pa.types.is_map)  # fmt: skip
    return any(test(kind) for test in tests)


def plain_lists(array: pa.Array) -> pa.Array:
    """Bring lists, none of them null, to one layout; of a map, its entries as the text key=value."""
    kind = array.type
    if pa.types.is_map(kind):
        array = pa.concat_arrays([array])
        entries = [as_text(side) for side in (array.keys, array.items)]
        texts = pc.binary_join_element_wise(*entries, "=", null_handling="replace", null_replacement="")
        return pa.ListArray.from_arrays(array.offsets, texts)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return array
    if pa.types.is_fixed_size_list(kind):
        return array.cast(pa.list_(kind.value_type))
    length = array.sizes.to_numpy().astype(np.int64)  # a view's cast has too few offsets, in Arrow 25
    rows = np.repeat(array.offsets.to_numpy(), length) + _places(length)
    offsets = np.concatenate([[0], np.cumsum(length)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), array.values.take(pa.array(rows)))


def _plain(array: pa.Array) -> pa.Array:
    """Bring values to a type that Arrow counts and finds."""
    if pa.types.is_float16(array.type):
        return array.cast(pa.float32())
    if pa.types.is_interval(array.type):
        return as_text(array)
    return array


def _refuse_objects(kind: pa.DataType, name: str) -> None:
    """Raise a UserError if there is an object in it, at any depth of lists."""
    inner = kind
    while is_list_or_map(inner) and not pa.types.is_map(inner):
        inner = inner.value_type
    if pa.types.is_struct(inner):
        names = [each.name for each in inner]
        way = f"; take one of its values, such as {name}.{names[0]}" if inner == kind and names else ""
        raise UserError(f"feature {name!r}: holds objects of {', '.join(names)}{way or '; write the values as a list'}")


def _blank_to_null(array: pa.Array) -> pa.Array:
    if pa.types.is_string(array.type):
        return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
    if pa.types.is_floating(array.type):
        return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array


def _places(length: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, ... within each run of the given lengths."""
    return np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)


def _bucket_names(edges: tuple[float, ...]) -> list[str]:
    bounds = [float("-inf"), *edges, float("inf")]
    return [f"[{low:g}, {high:g})" for low, high in pairwise(bounds)]

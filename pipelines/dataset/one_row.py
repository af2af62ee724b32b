"""Which row of an item or profile table counts where an id stands on several, as in a log that is the table itself.

Rows are reduced while they are read, so that what is held grows with the ids, not with the rows. Pure Arrow and NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.schema import FeatureTable
from pipelines.dataset.vocabulary import is_list_or_map, plain_lists
from pipelines.errors import UserError
from pipelines.log.ids import as_array, canonical
from pipelines.log.normalise import as_text
from pipelines.log.null_words import without_nulls
from pipelines.log.times import parse_times, time_format, time_unit

Rows = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


class OneRow:
    """Takes one row of each id out of a table, by `FeatureTable.duplicates`; the last call of all has the whole table.

    dropped : rows of ids that have another one.
    """

    def __init__(self, source: FeatureTable) -> None:
        self.source = source
        self.dropped = 0
        self._times: tuple[Any, str | None] | None = None  # unit and form, as the first rows have them

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table without rows that another one of the same id takes the place of, and without an id.

        Raises
        ------
        UserError
            If an id stands on several rows and the settings do not say which of them counts.
        """
        ids = canonical(table[self.source.id], f"{self.source.path}: id column {self.source.id!r}")
        table, ids = table.filter(pc.is_valid(ids)), ids.drop_null()
        encoded = ids.dictionary_encode()
        if len(encoded.dictionary) == len(ids):
            return table
        codes = encoded.indices.to_numpy().astype(np.int64)
        if self.source.duplicates == "refuse":
            count = np.bincount(codes)
            raise UserError(
                f"{self.source.path}: {int((count > 1).sum()):,} values of {self.source.id!r} stand on several rows, "
                f"e.g. {encoded.dictionary[int(count.argmax())].as_py()!r}; keep one row per id, or set duplicates: "
                "first, last or newest"
            )
        rows = self._rows(table, codes)
        self.dropped += table.num_rows - len(rows)
        return table.take(pa.array(rows))

    def _rows(self, table: pa.Table, codes: Rows) -> Rows:
        """Find the row of each id, ascending; one that says nothing only where there is no other."""
        place = np.arange(len(codes))
        if self.source.duplicates == "newest":
            keys = [*self._contents(table), self._when(table)]
        else:
            keys = [-place if self.source.duplicates == "first" else place]
        order = np.lexsort([*keys, self._says_something(table), codes])
        last = np.flatnonzero(np.append(codes[order][1:] != codes[order][:-1], True))
        return np.sort(order[last])

    def _says_something(self, table: pa.Table) -> Marks:
        """(rows,) whether any column has a value, beside the id and the time."""
        found = np.zeros(table.num_rows, bool)
        for name in set(table.column_names) - {self.source.id, self.source.time}:
            found |= _has_value(self._known(table, name))
        return found

    def _known(self, table: pa.Table, name: str) -> pa.Array:
        """Return a column without any word for nothing: of a shown one they stay, and a feature's own go later."""
        feature = self.source.features.get(name)
        words = [] if feature is None else feature.null_values
        known = without_nulls(table[name], [*self.source.null_values, *words])
        if feature is not None and feature.separator is not None and pa.types.is_string(known.type):
            return pc.split_pattern(known, feature.separator)  # a lone "|" is a list of nothing
        return known

    def _when(self, table: pa.Table) -> Rows:
        """(rows,) times; what has none is the oldest."""
        assert self.source.time is not None, "newest needs a time"
        column, where = table[self.source.time], f"{self.source.path}: time column {self.source.time!r}"
        if self._times is None:
            unit = time_unit(column, where)
            is_text = unit == "us" and pa.types.is_string(column.type)
            self._times = unit, time_format([column], where) if is_text else None
        unit, form = self._times
        return np.asarray(parse_times(column, unit, where, form=form).fill_null(-(2**63)).to_numpy(), np.int64)

    def _contents(self, table: pa.Table) -> list[Rows]:
        """What rows of one time are told apart by, so that neither their order nor the cut into files matters."""
        found = []
        for name in sorted(table.column_names, reverse=True):
            encoded = as_text(table[name]).fill_null("").dictionary_encode()
            order = pc.sort_indices(encoded.dictionary).to_numpy()
            rank = np.empty(len(order), np.int64)
            rank[order] = np.arange(len(order))
            found.append(rank[encoded.indices.to_numpy()])
        return found


def _has_value(array: pa.Array) -> Marks:
    """Return (rows,) whether there is a value: in a list, a map or an object, one within it, however deep.

    Null, NaN and blank text are none, as they are to whoever encodes the features.
    """
    kind = array.type
    if is_list_or_map(kind):
        found = np.zeros(len(array), bool)
        rows = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
        lists = plain_lists(array.drop_null())
        parents = pc.list_parent_indices(lists).to_numpy()
        found[rows[parents[_has_value(as_array(lists.flatten()))]]] = True
        return found
    there: Marks = pc.invert(pc.is_null(array, nan_is_null=True)).to_numpy(zero_copy_only=False).copy()
    if pa.types.is_struct(kind):
        there[:] = False
        for each in array.flatten():  # null where the object is
            there |= _has_value(as_array(each))
    elif pa.types.is_string(kind):
        there &= pc.not_equal(pc.utf8_trim_whitespace(array), "").fill_null(False).to_numpy(zero_copy_only=False)
    return there

"""An item or profile table read whole, its ids brought to the type that the log uses, ready to be looked up by id.

Held once per node while a dataset is made; its size is that of the table, not of the log. No Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.schema import FeatureTable
from pipelines.dataset.column_summary import ColumnSummary, summary_of
from pipelines.dataset.one_row import OneRow
from pipelines.dataset.vocabulary import FeatureEncoder, Floats, all_numbers_of, fit, no_numbers
from pipelines.errors import UserError
from pipelines.log.formats import Note
from pipelines.log.ids import WHOLE_NUMBER, canonical
from pipelines.log.null_words import without_nulls
from pipelines.log.sources import TEXT_FORMATS, guess_format, read_source


@dataclass(frozen=True)
class FeatureRows:
    """Raw columns by row, and the id of each row."""

    source: FeatureTable
    ids: pa.Array  # distinct, none null
    columns: pa.Table
    files: list[dict[str, Any]]  # lineage
    dropped: int = 0  # rows of ids that have another one

    @classmethod
    def read(cls, source: FeatureTable) -> FeatureRows:
        """Read the table.

        Raises
        ------
        UserError
            If it cannot be read, lacks a column, or has an id on several rows and does not say which counts.
        """
        names = list(dict.fromkeys([source.id, *source.features, *source.show, *filter(None, [source.time])]))
        shown = set(source.show) - {source.id, *source.features}
        one_row = OneRow(source)
        table, files = read_source(source, names, shown, source.id, one_row if source.duplicates != "refuse" else None)
        table = one_row(table)
        for name, feature in source.features.items():
            if feature.null_values:
                place = table.column_names.index(name)
                table = table.set_column(place, name, without_nulls(table[name], feature.null_values))
        ids = canonical(table[source.id], f"{source.path}: id column {source.id!r}")
        return cls(source, ids, table, files, one_row.dropped)

    def aligned(self, kind: pa.DataType, log: str, log_is_text: bool) -> FeatureRows:
        """Return the same rows with ids of the type that the log uses.

        Values of text files have no type of their own and follow the other side.

        Raises
        ------
        UserError
            If the types differ; the text names both columns.
        """
        if self.ids.type == kind:
            return self
        is_text = self.files_are_text()
        if pa.types.is_string(kind) and (is_text or log_is_text):
            return replace(self, ids=self.ids.cast(kind))
        if pa.types.is_string(self.ids.type) and pa.types.is_int64(kind) and is_text:
            numbers = pc.match_substring_regex(self.ids, WHOLE_NUMBER)  # others cannot be in the log
            return replace(self, ids=self.ids.filter(numbers).cast(kind), columns=self.columns.filter(numbers))
        raise UserError(
            f"{self.source.path}: column {self.source.id!r} holds {self.ids.type}{_such_as(self.ids)}, but {log} holds "
            f"{kind}; convert one of them so that the ids are of one type"
        )

    def files_are_text(self) -> bool:
        """Say whether the ids come from a format without types."""
        return (self.source.format or guess_format(self.files[0]["path"])) in TEXT_FORMATS

    def find(self, ids: pa.Array) -> pa.Array:
        """Find the row of each id, int32, null where the table has none."""
        return pc.index_in(ids, value_set=self.ids)

    def look_up(self, ids: pa.Array) -> pa.Table:
        """Look up the raw columns for each id, null where the table has no row."""
        return self.columns.take(self.find(ids))

    def nothing_in_common(self, what: str, ids: pa.Array) -> UserError:
        """Make the error of a table of which no id is one of the log's, `ids`."""
        return UserError(
            f"{self.source.path}: no value of {self.source.id!r} ({self.ids.type}{_such_as(self.ids)}) is {what} "
            f"({ids.type}{_such_as(ids)})"
        )

    def fit(self, used: npt.NDArray[np.bool_]) -> list[FeatureEncoder]:
        """Learn the encoders of all features from the rows in use."""
        columns = self.columns.filter(pa.array(used))
        try:
            return [fit(name, feature, columns[name]) for name, feature in self.source.features.items()]
        except UserError as error:
            raise UserError(f"{self.source.path}: {error}") from None

    def summaries(self, table: str) -> list[ColumnSummary]:
        """Say what the columns hold that are features or are shown."""
        names = dict.fromkeys([*self.source.features, *self.source.show])
        return [summary_of(table, each, self.columns[each], self.source.features.get(each)) for each in names]

    def notes(self, encoders: Sequence[FeatureEncoder]) -> list[Note]:
        """Say what a person should know of the table, as read and as its features' encoders take it."""
        path = self.source.path
        found: list[Note] = []
        if wrong := sum(file.get("unreadable", 0) for file in self.files):
            example = next(file["first_unreadable"] for file in self.files if "first_unreadable" in file)
            found.append((f"Lines of {path} that are no rows", wrong, example))
        if self.dropped:
            which = f"{self.source.duplicates} of their {self.source.id}"
            found.append((f"Rows of {path} that are not the {which}", self.dropped, ""))
        for encoder in encoders:
            if encoder.kind in ("numeric", "bucket") and (odd := no_numbers(self.columns[encoder.name])) is not None:
                found.append((f"Values of {encoder.name!r} that are no numbers, and count as missing", *odd))
            if encoder.low is not None and encoder.high is not None:
                numbers = all_numbers_of(self.columns[encoder.name], encoder.name)
                found += outliers(encoder.name, numbers, encoder.low, encoder.high)
        return found


def outliers(name: str, numbers: Floats, low: float, high: float) -> Iterator[Note]:
    """Count the numbers beyond the fences of a feature, with the commonest of them."""
    beyond = numbers[(numbers < low) | (numbers > high)]
    if len(beyond):
        values, counts = np.unique(beyond, return_counts=True)
        most = int(counts.argmax())
        what = f"Outliers of {name!r}, taken for {low:g} or {high:g}; null_values: makes them missing"
        yield what, len(beyond), f"{float(values[most])!r} ({counts[most]:,} times)"


def _such_as(ids: pa.Array) -> str:
    return f" such as {ids[0].as_py()!r}" if len(ids) else ""

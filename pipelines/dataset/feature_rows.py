"""An item or profile table read whole, its ids brought to the type that the log uses, ready to be looked up by id.

Held once per node while a dataset is made; its size is that of the table, not of the log. No Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.schema import FeatureTable
from pipelines.dataset.vocabulary import FeatureEncoder, fit
from pipelines.errors import UserError
from pipelines.log.ids import WHOLE_NUMBER, canonical
from pipelines.log.sources import TEXT_FORMATS, guess_format, read_source


@dataclass(frozen=True)
class FeatureRows:
    """Raw columns by row, and the id of each row."""

    source: FeatureTable
    ids: pa.Array  # distinct, none null
    columns: pa.Table
    files: list[dict[str, Any]]  # lineage

    @classmethod
    def read(cls, source: FeatureTable) -> FeatureRows:
        """Read the table.

        Raises
        ------
        UserError
            If it cannot be read, lacks a column, or has an id on several rows.
        """
        names = list(dict.fromkeys([source.id, *source.features, *source.show]))
        table, files = read_source(source, names)
        ids = canonical(table[source.id], f"{source.path}: id column {source.id!r}")
        present = pc.is_valid(ids)
        rows = cls(source, ids.filter(present), table.filter(present), files)
        counts = rows.ids.value_counts()
        more = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(more):
            raise UserError(
                f"{source.path}: {len(more):,} values of {source.id!r} stand on several rows, e.g. "
                f"{more.field('values')[0].as_py()!r}; keep one row per id"
            )
        return rows

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
            return FeatureRows(self.source, self.ids.cast(kind), self.columns, self.files)
        if pa.types.is_string(self.ids.type) and pa.types.is_int64(kind) and is_text:
            numbers = pc.match_substring_regex(self.ids, WHOLE_NUMBER)  # others cannot be in the log
            return FeatureRows(
                self.source, self.ids.filter(numbers).cast(kind), self.columns.filter(numbers), self.files
            )
        raise UserError(
            f"{self.source.path}: column {self.source.id!r} holds {self.ids.type}, but {log} holds {kind}; "
            "convert one of them so that the ids are of one type"
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

    def fit(self, used: npt.NDArray[np.bool_]) -> list[FeatureEncoder]:
        """Learn the encoders of all features from the rows in use."""
        columns = self.columns.filter(pa.array(used))
        try:
            return [fit(name, feature, columns[name]) for name, feature in self.source.features.items()]
        except UserError as error:
            raise UserError(f"{self.source.path}: {error}") from None

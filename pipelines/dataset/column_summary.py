"""What a column of an item or profile table holds, for the quality page: how much is missing, and what is common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config.schema import Feature
from pipelines.dataset.vocabulary import present_lists
from pipelines.errors import UserError
from pipelines.log.ids import as_array

TOP = 5  # values that are named
LONGEST = 60  # characters of one


@dataclass(frozen=True)
class ColumnSummary:
    """One column.

    table : events, items or profile.  rows : of the table, or of the log.  distinct : None where nobody counted.
    top : the commonest values as text, with their counts.
    """

    table: str
    name: str
    rows: int
    missing: int
    distinct: int | None
    top: tuple[tuple[str, int], ...]


def summary_of(table: str, name: str, column: Any, feature: Feature | None) -> ColumnSummary:
    """Look at a column; of lists, at the values in them.

    >>> summary_of("items", "color", pa.array(["red", None, "red"]), None)
    ColumnSummary(table='items', name='color', rows=3, missing=1, distinct=1, top=(('red', 2),))
    """
    array = as_array(column)
    values = array.drop_null()
    missing = array.null_count
    if feature is not None and feature.kind == "multi":
        try:
            lists = present_lists(array, feature.separator, name)
            values, missing = lists.flatten(), int(np.count_nonzero(np.diff(lists.offsets.to_numpy()) == 0))
        except UserError:  # said where the feature is learnt
            pass
    try:
        counted = values.value_counts()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # objects and the like
        return ColumnSummary(table, name, len(array), missing, None, ())
    counts = counted.field("counts").to_numpy()
    order = np.argsort(-counts, kind="stable")[:TOP]
    shown = tuple((_text(counted.field("values")[int(n)].as_py()), int(counts[n])) for n in order)
    return ColumnSummary(table, name, len(array), missing, len(counted), shown)


def _text(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"

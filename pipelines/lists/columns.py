"""What is known of each item of a model, by column: what filters, caps and categories may name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from mind_core.diversity import NO_CATEGORY
from mind_core.special_rows import FIRST_ITEM
from pipelines.dataset.dataset import FeatureInfo
from pipelines.errors import UserError
from pipelines.log.ids import as_array

SHOWN_NAMES = 30  # of columns, in a message


class ItemColumns:
    """Columns by name, row p being item index p + FIRST_ITEM.

    Parameters
    ----------
    values : raw values, as the item table has them; `id` among them.
    features : of the model; a text of several values (kind: multi, with a separator) is split as there.
    """

    def __init__(self, values: Mapping[str, Any], features: tuple[FeatureInfo, ...] = ()):
        self._values = dict(values)
        self.features = features
        self._separators = {each.name: each.separator for each in features if each.kind == "multi" and each.separator}

    def __len__(self) -> int:
        return len(self._values["id"])

    @property
    def names(self) -> list[str]:
        """Those that can be named."""
        return list(self._values)

    @property
    def ids(self) -> pa.Array:
        """Raw ids of the items."""
        return as_array(self._values["id"])

    def beside(self, table: Mapping[str, Any]) -> ItemColumns:
        """Return these and more columns; of the same name, the new one counts, and is split nowhere."""
        more = ItemColumns({**self._values, **table}, self.features)
        more._separators = {name: each for name, each in self._separators.items() if name not in table}
        return more

    def column(self, name: str, asked: str) -> pa.Array:
        """Return a column's values.

        Parameters
        ----------
        asked : how a message begins, as ``lists.where``.

        Raises
        ------
        UserError
            For a column that there is not; it names those that there are.
        """
        if name not in self._values:
            if name in {each.name for each in self.features}:
                raise UserError(f"{asked}: this model holds no values of the item feature {name!r}, as its dataset was "
                                "made before they were kept; preprocess and train again")  # fmt: skip
            near = difflib.get_close_matches(name, self.names, n=1)
            meant = f"did you mean {near[0]}? There are" if near else "there are"
            listed = ", ".join(self.names[:SHOWN_NAMES]) + (", ..." if len(self.names) > SHOWN_NAMES else "")
            raise UserError(f"{asked}: no column {name!r}; {meant} {listed}")
        array = as_array(self._values[name])
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        separator = self._separators.get(name)
        if separator is not None and pa.types.is_string(array.type):
            array = pc.split_pattern(array, separator)
        return array

    def categories(self, name: str, asked: str) -> Tensor:
        """Number a column's values: (V,) int64 by item index, NO_CATEGORY for an item without one.

        Of a column that holds several values an item, the first counts.
        """
        array = self.column(name, asked)
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            some = pc.greater(pc.list_value_length(array), 0)
            array = pc.list_element(pc.if_else(some, array, pa.scalar([None], array.type)), 0)
        if pa.types.is_nested(array.type):
            raise UserError(f"{asked}: column {name!r} holds {array.type}, which is no category")
        if pa.types.is_string(array.type):
            array = pc.if_else(pc.equal(array, ""), pa.scalar(None, array.type), array)
        codes = array.dictionary_encode().indices.fill_null(NO_CATEGORY)
        numbers = torch.full((FIRST_ITEM + len(array),), NO_CATEGORY)
        numbers[FIRST_ITEM:] = torch.from_numpy(np.asarray(codes, np.int64).copy())
        return numbers

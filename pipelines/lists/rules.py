"""The section `lists` of the settings, read for one model: the rules that its lists obey, and what there is to say.

where, allow, deny  ->  one mask over the items     cap, category  ->  categories by number
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from mind_core.diversity import Cap
from mind_core.list_rules import ListRules
from mind_core.special_rows import FIRST_ITEM
from pipelines.config.schema import Config, DataConfig, ListsConfig
from pipelines.config.where import parse_where
from pipelines.dataset.telling_feature import telling_feature
from pipelines.errors import UserError
from pipelines.lists.columns import ItemColumns
from pipelines.lists.filters import filtered
from pipelines.lists.tables import read_ids, read_stock


class ReadRules(NamedTuple):
    """The rules, and a line for each thing that a user should know of them."""

    rules: ListRules
    told: list[str]


def id_names(data: DataConfig) -> list[str]:
    """Name the columns that hold item ids in the user's own tables."""
    return [*([] if data.items is None else [data.items.id]), data.events.item]


def read_rules(settings: ListsConfig, columns: ItemColumns, names: Sequence[str] = ()) -> ReadRules:
    """Read the rules of lists for the items of one model.

    Parameters
    ----------
    columns : as `SavedModel.columns` gives them.
    names : of columns that hold ids in files of ids and of stock, beside id, item and item_id.

    Raises
    ------
    UserError
        In one line: a file or column that there is not, a comparison that cannot be, rules that leave no item.
    """
    told: list[str] = []
    if settings.stock is not None:
        columns = columns.beside(read_stock(settings.stock, columns.ids, names))
    allowed = _allowed(settings, columns, names, told)
    caps = tuple(Cap(columns.categories(name, "lists.cap"), limit) for name, limit in settings.cap.items())
    category = None
    if settings.policy == "greedy":
        category = columns.categories(settings.category or _category(columns), "lists.category")
        if settings.diversity == 0:
            told.append("lists.diversity=0: policy greedy is then the best match")
    mask = None
    if allowed is not None:
        if not allowed.any():
            raise UserError(f"lists: none of {len(allowed):,} items may stand in a list ({'; '.join(told)})")
        mask = torch.from_numpy(np.concatenate([np.zeros(FIRST_ITEM, np.bool_), allowed]))
    return ReadRules(ListRules(mask, settings.policy, settings.diversity, category, settings.quota, caps), told)


def rules_of(config: Config, columns: ItemColumns) -> ReadRules:
    """Read the rules of a whole configuration."""
    return read_rules(config.lists, columns, id_names(config.data))


def _allowed(
    settings: ListsConfig, columns: ItemColumns, names: Sequence[str], told: list[str]
) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """(items,) bool, or None where all are."""
    if settings.where is None and not settings.allow and not settings.deny:
        return None
    inside = np.ones(len(columns), np.bool_)
    if settings.where is not None:
        found = filtered(parse_where(settings.where), columns)
        inside &= np.asarray(found.inside)
        empty = f", {found.unknown:,} left out as a value is empty" if found.unknown else ""
        told.append(f"where {settings.where}: {int(inside.sum()):,} of {len(inside):,} items{empty}")
    for kind, paths in (("allow", settings.allow), ("deny", settings.deny)):
        if not paths:
            continue
        files = [read_ids(path, columns.ids, names) for path in paths]
        listed = np.zeros(len(columns), np.bool_)
        for file in files:
            listed[np.asarray(file.places)] = True
        told.append(f"{kind}: {int(listed.sum()):,} of {len(listed):,} items")
        told += [line for file in files if (line := file.told()) is not None]
        inside &= listed if kind == "allow" else ~listed
    return inside


def _category(columns: ItemColumns) -> str:
    name = telling_feature(columns.features)
    if name is None or name not in columns.names:
        raise UserError(f"lists.policy=greedy: needs lists.category, a column of the items: {', '.join(columns.names)}")
    return name

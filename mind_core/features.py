"""From feature columns to weighted embedding rows: one sparse matrix says which rows make up an item or a profile.

Every feature of every entity is a *bag*: a few (row, weight) pairs into one embedding table. A category is one row of
weight 1; a multi-valued feature is its values at weight 1/n (mean pooling); a standardised number x is a slope row of
weight x and an intercept row of weight 1. Pooling an item's features is then a single weighted sum over rows, for
behaviours, labels and negatives alike. A cold item, which training never sees, is made of feature rows alone: its own
row would still be the random one that it started as.

Value indices follow the dataset contract (mind_core.special_rows): 0 padding, 1 unknown, 2 missing, real values from 3.
Row 0 of the table is the padding row: all zeros, never trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mind_core.special_rows import FIRST_ITEM, FIRST_VALUE, MISSING, UNKNOWN

NUMERIC_ROWS = 3  # slope, intercept, missing

FeatureKind = Literal["categorical", "multi", "numeric"]


@dataclass(frozen=True)
class FeatureSpec:
    """A feature as the model needs it: `size` is the number of value indices, rows 0 to 2 included (0 if numeric)."""

    name: str
    kind: FeatureKind
    size: int

    @property
    def rows(self) -> int:
        return NUMERIC_ROWS if self.kind == "numeric" else self.size


def row_offsets(specs: list[FeatureSpec], first: int) -> list[int]:
    """Find the table row at which each feature's rows begin, the first of them at `first`."""
    starts = [first]
    for spec in specs:
        starts.append(starts[-1] + spec.rows)
    return starts[:-1]


def unknown_rows(specs: list[FeatureSpec], first: int) -> list[int]:
    """Find the table rows of unknown values (a number has none: it is known or missing)."""
    starts = row_offsets(specs, first)
    return [start + UNKNOWN for spec, start in zip(specs, starts, strict=True) if spec.kind != "numeric"]


@dataclass(frozen=True)
class FeatureColumn:
    """The values of one feature for n entities.

    values : categorical (n,) integer; numeric (n,) float with NaN where missing; multi (total,) integer, flat.
    offsets : multi only, (n + 1,) integer; entity i owns values[offsets[i]:offsets[i + 1]].
    """

    spec: FeatureSpec
    values: Tensor
    offsets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1


@dataclass(frozen=True)
class Bags:
    """n weighted bags of table rows in CSR form: bag i is rows[offsets[i]:offsets[i + 1]] with its weights.

    offsets : (n + 1,) int64.  rows : (nnz,) int64.  weights : (nnz,) float32.
    """

    offsets: Tensor
    rows: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, index: Tensor) -> Bags:
        """Return the bags at `index` (m,), in that order."""
        starts = self.offsets[index]
        sizes = self.offsets[index + 1] - starts
        offsets = torch.zeros(len(index) + 1, dtype=torch.int64, device=index.device)
        torch.cumsum(sizes, 0, out=offsets[1:])
        # position k of the output comes from k shifted by the gap between its bag's old and new start
        source = torch.repeat_interleave(starts - offsets[:-1], sizes) + torch.arange(
            int(offsets[-1]), device=index.device
        )
        return Bags(offsets, self.rows[source], self.weights[source])

    def to(self, device: torch.device | str) -> Bags:
        return Bags(self.offsets.to(device), self.rows.to(device), self.weights.to(device))


def item_bags(columns: list[FeatureColumn], items: int, cold: Tensor | None = None) -> Bags:
    """Make one bag per item index: the mean of its id embedding and of each feature's embedding.

    Parameters
    ----------
    columns : features of the real items, entity i being item index i + FIRST_ITEM.
    items : V, number of item indices, padding and unknown included.
    cold : (V,) bool, the real items that training never sees; None: there are none.

    Returns
    -------
    Bags of length V. Bag 0 (padding) is empty; bag 1 (unknown) has the unknown row of the id and of every feature. The
    bag of a cold item is the mean of its features' embeddings, without any row that no other item has: nothing trains
    such a row, and like an unknown value it contributes nothing. It is empty if nothing else is known of the item.

    Raises
    ------
    ValueError
        If a column has not one value per real item, or an item is cold and there are no features.
    """
    cold = torch.zeros(items, dtype=torch.bool) if cold is None else cold
    if not columns and cold.any():
        raise ValueError("cold items need features: their vectors are made of nothing else")
    mean_weight = 1 / (len(columns) + (~cold).float())  # (V,), of each embedding in the mean
    ids = (~cold).nonzero().squeeze(1)[1:]  # all but padding
    parts = [(ids, ids, torch.ones(len(ids)))]  # (item, row, weight) of the ids; row = item index
    for column, start in zip(columns, row_offsets([c.spec for c in columns], items), strict=True):
        if len(column) != items - FIRST_ITEM:
            expected = items - FIRST_ITEM
            raise ValueError(f"feature {column.spec.name!r} has {len(column)} items, the catalogue {expected}")
        entity, row, weight = _trained(_entries(column), cold[FIRST_ITEM:], column.spec.rows)
        unknown_row = MISSING if column.spec.kind == "numeric" else UNKNOWN
        parts.append((entity + FIRST_ITEM, row + start, weight))
        parts.append((torch.tensor([UNKNOWN]), torch.tensor([unknown_row + start]), torch.ones(1)))
    return _csr([(item, row, weight * mean_weight[item]) for item, row, weight in parts], items)


def new_item_bags(new: list[FeatureColumn], known: list[FeatureColumn], cold: Tensor) -> tuple[Bags, Tensor]:
    """Make a bag for each of N items that came after the training, as `item_bags` makes one for a cold item.

    Parameters
    ----------
    new : features of the new items, one entity each.
    known : features of the V - FIRST_ITEM real items of the model.
    cold : (V,) bool, those of them that training never saw.

    Returns
    -------
    The N bags of rows of the item table, and (N,) bool: the model knows a value of the item in some feature. Of
    another item it may know that a value is missing or rare, and nothing else.
    """
    parts, told = [], torch.zeros(len(new[0]), dtype=torch.bool)
    for mine, theirs, start in zip(new, known, row_offsets([c.spec for c in known], len(cold)), strict=True):
        entity, row, weight = _entries(theirs)
        trained = torch.zeros(theirs.spec.rows, dtype=torch.bool)
        trained[row[~cold[FIRST_ITEM:][entity]]] = True
        entity, row, weight = _entries(mine)
        kept = trained[row]
        parts.append((entity[kept], row[kept] + start, weight[kept] / len(new)))
        value = row < MISSING if mine.spec.kind == "numeric" else row >= FIRST_VALUE
        told[entity[kept & value]] = True
    return _csr(parts, len(told)), told


def profile_bags(columns: list[FeatureColumn]) -> Bags:
    """Make one bag per user and feature (bag u * F + f), so that their embeddings can be concatenated.

    Row 0 of the profile table is the padding row, as in the item table.
    """
    count = len(columns)
    parts = []
    for feature, (column, start) in enumerate(zip(columns, row_offsets([c.spec for c in columns], 1), strict=True)):
        entity, row, weight = _entries(column)
        parts.append((entity * count + feature, row + start, weight))
    return _csr(parts, len(columns[0]) * count)


def _entries(column: FeatureColumn) -> tuple[Tensor, Tensor, Tensor]:
    """(entity, row within the feature, weight) of each table row that a column uses."""
    n = len(column)
    entity = torch.arange(n)
    if column.spec.kind == "categorical":
        return entity, column.values.long(), torch.ones(n)
    if column.spec.kind == "multi":
        assert column.offsets is not None
        sizes = column.offsets.diff()
        return torch.repeat_interleave(entity, sizes), column.values.long(), torch.repeat_interleave(1.0 / sizes, sizes)
    present = ~column.values.isnan()
    known, value = entity[present], column.values[present].float()
    missing = entity[~present]
    slope, intercept, absent = (torch.full_like(known, 0), torch.full_like(known, 1), torch.full_like(missing, MISSING))
    return (
        torch.cat([known, known, missing]),
        torch.cat([slope, intercept, absent]),
        torch.cat([value, torch.ones(len(known)), torch.ones(len(missing))]),
    )


def _trained(entries: tuple[Tensor, Tensor, Tensor], cold: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the entries without those of rows that only `cold` entities (n,) have."""
    if not cold.any():
        return entries
    entity, row, weight = entries
    trained = torch.zeros(rows, dtype=torch.bool)
    trained[row[~cold[entity]]] = True
    kept = trained[row]
    return entity[kept], row[kept], weight[kept]


def _csr(parts: list[tuple[Tensor, Tensor, Tensor]], bags: int) -> Bags:
    entity, rows, weights = (torch.cat(column) for column in zip(*parts, strict=True))
    order = entity.argsort(stable=True)
    offsets = torch.zeros(bags + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(entity, minlength=bags), 0, out=offsets[1:])
    return Bags(offsets, rows[order].contiguous(), weights[order].float())

"""From a split's Arrow table to the flat tensors of mind_core: no copies per row, no Python loop over users."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mind_core.evaluation import Targets
from mind_core.features import FeatureColumn, FeatureSpec, profile_bags
from mind_core.sequences import Sequences
from mind_core.special_rows import FIRST_ITEM
from pipelines.dataset.dataset import FeatureInfo


def feature_specs(infos: tuple[FeatureInfo, ...]) -> list[FeatureSpec]:
    """Make the model's feature specs; a bucketised number is a category of its bucket."""
    return [FeatureSpec(i.name, "categorical" if i.kind == "bucket" else i.kind, i.size) for i in infos]


def feature_columns(table: pa.Table, specs: list[FeatureSpec], prefix: str) -> list[FeatureColumn]:
    """Read encoded ``<prefix>_<name>`` columns as tensors."""
    return [_feature_column(table[f"{prefix}_{spec.name}"], spec) for spec in specs]


def to_sequences(table: pa.Table, profile: list[FeatureSpec]) -> Sequences:
    """Read the histories and profiles of a split, row u of the table being user u."""
    items, offsets = _flat(table["items"])
    columns = feature_columns(table, profile, "profile")
    return Sequences(items, offsets, profile_bags(columns) if columns else None)


def to_targets(table: pa.Table) -> Targets:
    """Read the held-out items of a split."""
    return Targets(*_flat(table["targets"]))


def train_counts(items: pa.Table) -> torch.Tensor:
    """Read (V,) the events per item index in the training split, padding and unknown included, from the item table."""
    counts = to_tensor(items["train_count"], np.int64)
    return torch.cat([counts.new_zeros(FIRST_ITEM), counts])


def cold_mask(counts: torch.Tensor, features: list[FeatureSpec]) -> torch.Tensor:
    """Find the items that training never sees, (V,) bool; none without `features`, which their vectors are made of.

    counts : (V,) events per item index in the training split.
    """
    cold = counts == 0 if features else torch.zeros_like(counts, dtype=torch.bool)
    cold[:FIRST_ITEM] = False
    return cold


def _feature_column(column: pa.ChunkedArray, spec: FeatureSpec) -> FeatureColumn:
    if spec.kind == "multi":
        values, offsets = _flat(column)
        return FeatureColumn(spec, values, offsets)
    if spec.kind == "numeric":
        numbers = pc.fill_null(column.cast(pa.float32()), float("nan"))
        return FeatureColumn(spec, to_tensor(numbers, np.float32))
    return FeatureColumn(spec, to_tensor(column, np.int64))


def _flat(column: pa.ChunkedArray) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn a list column into (values int32, offsets int64)."""
    offsets = torch.zeros(len(column) + 1, dtype=torch.int64)
    torch.cumsum(to_tensor(pc.list_value_length(column), np.int64), 0, out=offsets[1:])
    return to_tensor(pc.list_flatten(column), np.int32), offsets


def to_tensor(column: pa.ChunkedArray, dtype: npt.DTypeLike) -> torch.Tensor:
    """Turn a column of numbers into a tensor."""
    return torch.tensor(np.asarray(column, dtype=dtype))  # a copy: Arrow's buffers are read-only, torch's are not


def with_held_out(table: pa.Table) -> pa.Table:
    """Return the rows of a split with their held-out items, the targets, at the end of the history."""
    items, targets = (table[name].combine_chunks() for name in ("items", "targets"))
    first, second = list_offsets(items), list_offsets(targets)
    flat, offsets = pa.concat_arrays([items.flatten(), targets.flatten()]), first + second
    # row u is items[a:b] ++ targets[c:d]: its places in the two flat arrays laid one after the other
    rows = np.repeat(np.arange(len(items)), np.diff(offsets))
    place = np.arange(offsets[-1]) - offsets[rows]
    known = np.diff(first)[rows]
    index = np.where(place < known, first[rows] + place, first[-1] + second[rows] + place - known)
    joined = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat.take(pa.array(index)))
    return table.set_column(table.schema.get_field_index("items"), "items", joined)


def list_offsets(lists: pa.Array) -> npt.NDArray[np.int64]:
    """Say where each list begins in the values of all, and where the last one ends, (n + 1,)."""
    return np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())])

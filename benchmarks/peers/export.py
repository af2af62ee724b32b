"""A data set as .npz for peers, whose Python has neither pyarrow nor our packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from benchmarks.dataset_loop import Data
from benchmarks.quality.data import Sample, rows
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SPLITS
from pipelines.dataset.tensors import feature_specs, to_sequences, to_targets


def export(data: Data, path: Path, evaluated: torch.Tensor, with_users: bool) -> Path:
    """Write `path`.

    Parameters
    ----------
    evaluated : rows of the validation split to rank the catalogue for; each has one target.
    with_users : also the user's number and categorical profile features, as columns 0, 1, ... of `*_profile`.
    """
    arrays = {
        "item_rows": np.array(data.dataset.manifest.item_rows),
        "items": data.train.items.numpy(),
        "offsets": data.train.offsets.numpy(),
        "validation_items": data.arrays.validation.items.numpy(),
        "validation_offsets": data.arrays.validation.offsets.numpy(),
        "targets": data.arrays.targets.items.numpy(),
        "evaluated": evaluated.numpy(),
    }
    if with_users:
        names = ["user", *_profile_names(data.dataset)]
        train, validation = (_columns(table, names) for table in (data.train_table, data.validation_table))
        sizes = np.maximum(train.max(0), validation.max(0)) + 1
        arrays |= {"train_profile": train, "validation_profile": validation, "profile_sizes": sizes}
    np.savez(path, **arrays)
    return path


def export_splits(dataset: Dataset, path: Path, sample: Sample) -> Path:
    """Write `path` for contestants of `make bench-quality`: all that they may know, so no target of the test split.

    items, offsets of the train split; validation_* and test_* of the histories; validation_targets and
    validation_target_offsets; *_profile (n, F) with profile_sizes (F,): the user's number, unless users are held out,
    and categorical profile features.
    """
    arrays = {"item_rows": np.array(dataset.manifest.item_rows)}
    names = _profile_names(dataset)
    if dataset.config.split.protocol != "user_holdout":
        names = ["user", *names]
    sizes = np.zeros(len(names), np.int64)
    for split in SPLITS:
        table = rows(dataset, split, sample)
        histories, prefix = to_sequences(table, []), "" if split == "train" else f"{split}_"
        arrays |= {f"{prefix}items": histories.items.numpy(), f"{prefix}offsets": histories.offsets.numpy()}
        if names:
            arrays[f"{split}_profile"] = _columns(table, names)
            sizes = np.maximum(sizes, arrays[f"{split}_profile"].max(0, initial=0) + 1)
        if split == "validation":
            targets = to_targets(table)
            arrays |= {
                "validation_targets": targets.items.numpy(),
                "validation_target_offsets": targets.offsets.numpy(),
            }
    if names:
        arrays["profile_sizes"] = sizes
    aside = path.with_suffix(".partial")
    with aside.open("wb") as file:
        np.savez(file, **arrays)
    aside.rename(path)
    return path


def _profile_names(dataset: Dataset) -> list[str]:
    specs = feature_specs(dataset.manifest.profile_features)
    return [f"profile_{spec.name}" for spec in specs if spec.kind == "categorical"]


def _columns(table: pa.Table, names: list[str]) -> np.ndarray:
    return np.stack([np.asarray(table[name], dtype=np.int64) for name in names], axis=1)

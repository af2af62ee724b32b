"""A data set as .npz for peers, whose Python has neither pyarrow nor our packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from benchmarks.dataset_loop import Data
from pipelines.dataset.tensors import feature_specs


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
        names = [
            f"profile_{spec.name}"
            for spec in feature_specs(data.dataset.manifest.profile_features)
            if spec.kind == "categorical"
        ]
        train, validation = (_columns(table, names) for table in (data.train_table, data.validation_table))
        sizes = np.maximum(train.max(0), validation.max(0)) + 1
        arrays |= {"train_profile": train, "validation_profile": validation, "profile_sizes": sizes}
    np.savez(path, **arrays)
    return path


def _columns(table: pa.Table, names: list[str]) -> np.ndarray:
    return np.stack([np.asarray(table[name], dtype=np.int64) for name in ("user", *names)], axis=1)

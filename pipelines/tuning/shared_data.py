"""The training data of a campaign in Ray's object store: once per node, read in place by every trial.

Ray gives NumPy arrays out of shared memory without a copy, torch tensors not; so they travel as the former.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import ray
import torch

from pipelines.dataset import Dataset
from pipelines.train_data import TrainData, columns_to_train, load_data, validation_rows


def share_data(dataset: Dataset, validation_users: int | None, seed: int) -> ray.ObjectRef[Any]:
    """Read the train and validation splits and put them into the object store.

    validation_users, seed : which users every trial is validated on, as ``train.validation_users`` and ``train.seed``.
    """
    columns = columns_to_train(dataset)
    tables = dataset.tables("validation", ["user", *columns, "targets"])
    validation = validation_rows(tables, validation_users, seed)
    return ray.put(_arrays(load_data(dataset, dataset.table("train", columns), validation)))


def shared_data(stored: Any) -> TrainData:
    """The tensors of what `share_data` stored, once ``ray.get`` has mapped it: views, not to be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        data = _tensors(stored)
    assert isinstance(data, TrainData)
    return data


def _arrays(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), {field.name: _arrays(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def _tensors(stored: Any) -> Any:
    if isinstance(stored, tuple):
        kind, fields = stored
        return kind(**{name: _tensors(field) for name, field in fields.items()})
    return None if stored is None else torch.from_numpy(stored)

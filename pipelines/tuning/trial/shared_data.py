"""The training data of a campaign in Ray's object store: once per node, read in place by every trial.

Ray gives NumPy arrays out of shared memory without a copy, torch tensors not; so they travel as the former.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import ray
import torch

from pipelines.config.schema import TrainConfig
from pipelines.dataset.dataset import Dataset
from pipelines.training.data import TrainData, read_data


def share_data(dataset: Dataset, config: TrainConfig) -> ray.ObjectRef[Any]:
    """Read the train and validation splits and put them into the object store.

    config : of the campaign's base; its ``validation_users`` and ``seed`` say on whom every trial is validated.
    """
    return ray.put(_arrays(read_data(dataset, config)))


def shared_data(stored: Any) -> TrainData:
    """Read the tensors of what `share_data` stored, once ``ray.get`` has mapped it: views, not to be written to."""
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

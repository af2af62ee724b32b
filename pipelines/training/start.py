"""`mind train` from its start: what is wrong with the dataset is told before PyTorch and Ray are imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset

if TYPE_CHECKING:
    from pipelines.training.train import TrainOutcome


def train(config: Config) -> TrainOutcome:
    """Train as `pipelines.training.train.train` does.

    Raises
    ------
    UserError, DivergedError
        As there; for a dataset that is not there or cannot be learned from, before anything heavy is imported.
    """
    Dataset.open(config.dataset_path).require_learnable()
    from pipelines.training.train import train as fit

    return fit(config)

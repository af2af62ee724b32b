"""`mind train` from its start: what is wrong with the input is told at once; then Ray starts beside the imports.

Imports neither torch nor Ray by itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipelines.cluster.address import cluster_address
from pipelines.cluster.beside import imported_beside
from pipelines.cluster.template import OF_TRAINING
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.tracking.store import imports_of
from pipelines.training.startup import Timeline

if TYPE_CHECKING:
    from pipelines.training.train import TrainOutcome


def train(config: Config) -> TrainOutcome:
    """Train as `pipelines.training.train.train` does, in less time to the first step.

    Raises
    ------
    UserError, DivergedError
        As `train`; for a dataset that is not there or cannot be learned from, before anything has started.
    """
    timeline = Timeline()
    Dataset.open(config.dataset_path).require_learnable()
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")  # a report waits for this poll; 2 s stall runs
    if config.model.encoder == "popularity" or cluster_address(config.ray) is not None:
        from pipelines.training.train import train as fit

        return fit(config, timeline)
    with imported_beside("torch", *imports_of(config.tracking.uri)):
        from pipelines.cluster.session import ray_session

        with ray_session(config.ray, workers=config.train.workers, home=config.home_path, preload=OF_TRAINING):
            from pipelines.training.train import train as fit

            return fit(config, timeline)

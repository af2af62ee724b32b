"""Our bare training loop over a data set of `mind preprocess`: mind_core and the arrays, no Ray, no MLflow.

    python -m benchmarks.dataset_loop CONF DATASET [--optimizer dense]

prints samples/s as JSON. The settings are the configuration's, the samples those of `mind train`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import torch

from benchmarks.dense import DenseAdam
from mind_core.negatives import NegativeSampler
from mind_core.sequences import Samples, Sequences
from mind_core.training import Trainer
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.training.data import TrainData, build_model, horizon_of, load_data
from pipelines.training.memory_input import MemoryInput

Optimizer = Literal["rows", "dense"]
INTERVAL = 50  # steps between two readings of the clock, as between two reports of `mind train`
WARM_UP = 10


@dataclass(frozen=True)
class Data:
    """What a worker of `mind train` holds, and the splits as the tables that they were, user by user."""

    dataset: Dataset
    arrays: TrainData
    train_table: pa.Table
    validation_table: pa.Table

    @property
    def train(self) -> Sequences:
        assert self.arrays.train is not None
        return self.arrays.train


def load(dataset: Dataset) -> Data:
    """Read what a worker of `mind train` reads."""
    train, validation = dataset.table("train"), dataset.table("validation")
    return Data(dataset, load_data(dataset, train, validation), train, validation)


def make_trainer(config: Config, data: Data, optimizer: Optimizer) -> Trainer:
    """Ours, or ours with a dense gradient and Adam over the whole item table."""
    seed = config.train.seed
    trainer = Trainer(
        build_model(config.model, data.dataset, seed),
        data.arrays.bags,
        NegativeSampler(config.loss, data.arrays.counts, cold=data.arrays.cold),
        config.optim,
        total_steps=0,
        seed=seed,
        behaviour_dropout=config.train.behaviour_dropout,
        labels_per_window=config.train.labels_per_window,
        horizon=horizon_of(config.train, data.dataset),
    )
    if optimizer == "dense":
        trainer.rows["items"] = DenseAdam(trainer.model.item_table.weight, config.optim.table_learning_rate)
    return trainer


def endless(config: Config, data: Data) -> Iterator[Samples]:
    """Epoch after epoch of `mind train`'s full batches."""
    settings = config.train.model_copy(update={"epochs": sys.maxsize})
    steps = MemoryInput(settings, data.train, max_history=config.model.max_history).steps(0)
    return (step.samples for step in steps if step.size == settings.samples_per_step)


def samples_per_second(config: Config, data: Data, optimizer: Optimizer, steps: int) -> list[float]:
    """One figure per interval of 50 steps, after a warm-up."""
    trainer = make_trainer(config, data, optimizer)
    batches = endless(config, data)
    for _ in range(WARM_UP):
        trainer.train_step(data.train, next(batches))
    rates = []
    for start in range(0, steps, INTERVAL):
        interval = min(INTERVAL, steps - start)
        started = time.perf_counter()
        for _ in range(interval):
            trainer.train_step(data.train, next(batches))
        rates.append(interval * config.train.batch_size / (time.perf_counter() - started))
    return rates


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("conf", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--optimizer", choices=("rows", "dense"), default="rows")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config, data = load_config(arguments.conf), load(Dataset.open(arguments.dataset))
    print(json.dumps({"rates": samples_per_second(config, data, arguments.optimizer, arguments.steps)}))


if __name__ == "__main__":
    main()

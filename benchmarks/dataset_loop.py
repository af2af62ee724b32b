"""Our bare training loop over a data set of `mind preprocess`: mind_core and the arrays, no Ray, no MLflow.

    python -m benchmarks.dataset_loop CONF DATASET [--optimizer dense]

prints samples/s as JSON. The settings are the configuration's, the samples those of `mind train`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import torch

from benchmarks.dense import DenseAdam
from mind_core.evaluation import Targets
from mind_core.features import Bags, FeatureSpec, item_bags
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.sequences import Samples, Sequences, all_targets, draw_targets, epoch_batches
from mind_core.training import Trainer, seeded
from pipelines.arrays import feature_columns, feature_specs, to_sequences, to_targets, train_counts
from pipelines.config import Config
from pipelines.dataset import Dataset
from pipelines.load_config import load_config

Optimizer = Literal["rows", "dense"]
INTERVAL = 50  # steps between two readings of the clock, as between two reports of `mind train`
WARM_UP = 10


@dataclass(frozen=True)
class Data:
    """The splits as flat arrays, and as the tables that they were, user by user."""

    train: Sequences
    validation: Sequences
    targets: Targets
    bags: Bags
    counts: torch.Tensor
    items: int  # V
    item_specs: list[FeatureSpec]
    profile_specs: list[FeatureSpec]
    train_table: pa.Table
    validation_table: pa.Table


def load(dataset: Dataset) -> Data:
    """Read what a worker of `mind train` reads."""
    manifest = dataset.manifest
    item_specs, profile_specs = feature_specs(manifest.item_features), feature_specs(manifest.profile_features)
    train, validation = (dataset.table(split).sort_by("user") for split in ("train", "validation"))
    items = dataset.items()
    return Data(
        to_sequences(train, profile_specs),
        to_sequences(validation, profile_specs),
        to_targets(validation),
        item_bags(feature_columns(items, item_specs, "feature"), manifest.item_rows),
        train_counts(items),
        manifest.item_rows,
        item_specs,
        profile_specs,
        train,
        validation,
    )


def make_trainer(config: Config, data: Data, optimizer: Optimizer) -> Trainer:
    """Ours, or ours with a dense gradient and Adam over the whole item table."""
    seed = config.train.seed
    trainer = Trainer(
        MIND(config.model, data.items, data.item_specs, data.profile_specs, seed),
        data.bags,
        NegativeSampler(config.loss, data.counts),
        config.optim,
        total_steps=0,
        seed=seed,
        behaviour_dropout=config.train.behaviour_dropout,
    )
    if optimizer == "dense":
        trainer.rows["items"] = DenseAdam(trainer.model.item_table.weight, config.optim.table_learning_rate)
    return trainer


def endless(config: Config, data: Data) -> Iterator[Samples]:
    """Epoch after epoch of batches."""
    epoch, settings = 0, config.train
    while True:
        if settings.targets_per_user is None:
            samples = all_targets(data.train)
        else:
            samples = draw_targets(
                data.train, settings.targets_per_user, seeded("cpu", settings.seed, "targets", epoch)
            )
        order = seeded("cpu", settings.seed, "order", epoch)
        for batch in epoch_batches(len(samples), settings.batch_size, 1, order):
            if len(batch) == settings.batch_size:
                yield samples[batch]
        epoch += 1


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

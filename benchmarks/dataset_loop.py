"""Our bare training loop over a data set of `mind preprocess`: mind_core and the arrays, no Ray, no MLflow.

    python -m benchmarks.dataset_loop CONF DATASET [--optimizer dense]

prints samples/s as JSON. The settings are the configuration's, the samples those of `mind train`. `train_best` is all
of `mind train` but Ray and MLflow: validations, early stopping, the best epoch.
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
from mind_core.inference import MINDRetriever
from mind_core.negatives import NegativeSampler
from mind_core.sequences import Samples, Sequences
from mind_core.training import Trainer
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.training.checkpoints import EarlyStopping
from pipelines.training.data import TrainData, build_model, horizon_of, load_data
from pipelines.training.labels import EVERY_EVENT, label_rule, with_fitting_windows
from pipelines.training.loop import trainer_in_memory, validations
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


def load(dataset: Dataset, config: Config | None = None) -> Data:
    """Read what a worker of `mind train` reads with a configuration; None: for a peer, which has no rule of labels."""
    train, validation = dataset.table("train"), dataset.table("validation")
    rule = EVERY_EVENT if config is None else label_rule(config.train, dataset)
    arrays = load_data(dataset, train, validation, rule=rule)
    return Data(dataset, arrays, train, validation)


def make_trainer(config: Config, data: Data, optimizer: Optimizer) -> Trainer:
    """Ours, or ours with a dense gradient and Adam over the whole item table."""
    seed = config.train.seed
    config = with_fitting_windows(config, data.dataset)
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
    settings = with_fitting_windows(config, data.dataset).train.model_copy(update={"epochs": sys.maxsize})
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


@dataclass(frozen=True)
class Trained:
    """The best epoch of a training.

    curve : the metric that it goes by, of each validation.
    ended : why it did: patience, epochs, or cap (of time).
    """

    retriever: MINDRetriever
    curve: list[float]
    ended: Literal["patience", "epochs", "cap"]

    @property
    def best_epoch(self) -> int:
        return 1 + self.curve.index(max(self.curve))


def train_best(config: Config, dataset: Dataset, data: TrainData, cap: float = float("inf")) -> Trained:
    """Train as a single worker of `mind train` does and keep the epoch of the best validation.

    cap : seconds after which no further epoch begins.
    """
    given, trainer = trainer_in_memory(config, dataset, data, torch.device("cpu"), rank=0, ranks=1)
    stopping, curve, best = EarlyStopping(config.train.patience), list[float](), dict[str, torch.Tensor]()
    started, out_of_time = time.perf_counter(), False
    for validation in validations(config, data, given, trainer, stopping, rank=0, ranks=1):
        curve.append(validation.metrics[f"validation/{config.train.metric}"])
        if stopping.stale == 0:
            best = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        if out_of_time := time.perf_counter() - started > cap:
            break
    trainer.model.load_state_dict(best)
    ended: Literal["patience", "epochs", "cap"] = "epochs"
    if stopping.should_stop():
        ended = "patience"
    elif out_of_time and trainer.step < trainer.total_steps:
        ended = "cap"
    return Trained(MINDRetriever.of(trainer.model.eval(), data.bags), curve, ended)


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
    config = load_config(arguments.conf)
    data = load(Dataset.open(arguments.dataset), config)
    print(json.dumps({"rates": samples_per_second(config, data, arguments.optimizer, arguments.steps)}))


if __name__ == "__main__":
    main()

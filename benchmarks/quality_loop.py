"""A contender that trains and evaluates by turns, so that several can share a machine without disturbing each other.

    python -m benchmarks.quality_loop CONF DATASET --optimizer rows

Says {"ready": true}; then reads a number of seconds per line, goes on training until it has trained for so long, ranks
the catalogue for the validation users and answers with one line of JSON: the seconds trained and the samples seen so
far, and the HitRate@20. Only training counts as time. benchmarks/peers/rechub.py speaks the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.dataset_loop import Data, endless, load, make_trainer
from mind_core.evaluation import evaluate
from mind_core.inference import MINDRetriever
from mind_core.model import MIND
from mind_core.training import seeded
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset

CUTOFF = 20


def evaluated_users(data: Data, limit: int) -> torch.Tensor:
    """A fixed sample of the validation users whose target does not lie in their history."""
    users = torch.randperm(len(data.arrays.validation), generator=seeded("cpu", "evaluated users")).tolist()
    offsets, targets = data.arrays.validation.offsets.tolist(), data.arrays.targets.items
    found = []
    for user in users:
        if not bool((data.arrays.validation.items[offsets[user] : offsets[user + 1]] == targets[user]).any()):
            found.append(user)
        if len(found) == limit:
            break
    return torch.tensor(sorted(found))


def hit_rate(model: MIND, data: Data, users: torch.Tensor) -> float:
    """HitRate@20 of full ranking, seen items left out."""
    retriever = MINDRetriever.of(model, data.arrays.bags)
    found = evaluate(retriever, data.arrays.validation, data.arrays.targets, users, [CUTOFF], exclude_seen=True)
    return float(found.metrics[f"hit_rate@{CUTOFF}"].mean())


def answer(values: dict[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(values), flush=True)


def take_turns(config: Config, data: Data, optimizer: str, users: torch.Tensor) -> None:
    """Train until each number of seconds that standard input asks for."""
    trainer = make_trainer(config, data, "dense" if optimizer == "dense" else "rows")
    batches = endless(config, data)
    answer({"ready": True})
    spent = 0.0
    for line in sys.stdin:
        started = time.perf_counter()
        end = started + float(line) - spent
        while time.perf_counter() < end:
            trainer.train_step(data.train, next(batches))
        spent += time.perf_counter() - started
        samples = trainer.step * config.train.batch_size
        answer({"seconds": spent, "samples": samples, "hit_rate": hit_rate(trainer.model, data, users)})


def main() -> None:
    """Read the data set and wait for the first turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("conf", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--optimizer", choices=("rows", "dense"), default="rows")
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = load_config(arguments.conf)
    data = load(Dataset.open(arguments.dataset), config)
    take_turns(config, data, arguments.optimizer, evaluated_users(data, arguments.users))


if __name__ == "__main__":
    main()

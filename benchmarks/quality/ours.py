"""A contestant of our own, in a process of its own: a preset trained by the bare loop, or a rule; writes its lists.

    python -m benchmarks.quality.ours {model,rule} NAME CONF DATASET OUT SETTINGS

SETTINGS, as JSON: seed, threads, quick; of a model the preset, the `sets` on top of it and cap_seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.dataset_loop import train_best
from benchmarks.measure import peak_bytes
from benchmarks.peers.lists import DEPTH, write
from benchmarks.quality.data import EVERYBODY, FEW, Sample, asked_users
from mind_core.inference import Scorer, recommend_shelves
from mind_core.shelves import Shelf
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.evaluation.baselines import fit_baselines
from pipelines.training.data import columns_to_train, load_data, read_data, train_table, validation_rows
from pipelines.training.labels import label_rule


def config_of(conf: Path, settings: dict[str, Any]) -> Config:
    """Make the configuration of a contestant: the data set's, its preset and seed on top."""
    sets = [*settings.get("sets", []), f"train.seed={settings.get('seed', 0)}"]
    if settings["quick"]:
        sets += ["train.epochs=1", f"train.validation_users={FEW.validation}"]
    return load_config(conf, sets, preset=settings.get("preset"))


def model(name: str, config: Config, dataset: Dataset, settings: dict[str, Any]) -> tuple[Scorer, dict[str, Any]]:
    """Train a preset."""
    if settings["quick"]:
        columns, rule = columns_to_train(dataset), label_rule(config.train, dataset)
        train = train_table(dataset, ["user", *columns, *rule.columns], False).sort_by("user").slice(0, FEW.train)
        validation = dataset.tables("validation", ["user", *columns, "targets"])
        rows = validation_rows(validation, config.train.validation_users, config.train.seed)
        data = load_data(dataset, train, rows, rule=rule)
    else:
        data = read_data(dataset, config.train)
    trained = train_best(config, dataset, data, settings["cap_seconds"])
    told = {"ended": trained.ended, "epochs": len(trained.curve), "best_epoch": trained.best_epoch}
    return trained.retriever, {**told, "validation": trained.curve}


def rule(name: str, config: Config, dataset: Dataset, settings: dict[str, Any]) -> tuple[Scorer, dict[str, Any]]:
    """Fit a rule."""
    fitted = fit_baselines(dataset, config, item_knn=name == "item_knn")
    rules = fitted.scorers(config.evaluate.seen == "filter")
    if name not in rules:
        raise SystemExit("; ".join(fitted.left_out) or f"{name} has nothing to say where seen items are filtered")
    return rules[name], {"note": fitted.notes[name]} if name in fitted.notes else {}


def lists_of(scorer: Scorer, dataset: Dataset, filtered: bool, sample: Sample) -> dict[str, Any]:
    """Rank for the test users: what benchmarks/peers/lists.py says a contestant writes."""
    sequences, _ = asked_users(dataset, sample)
    sizes: dict[Shelf, int] = {"new": DEPTH} if filtered else {"all": DEPTH, "new": DEPTH}
    found = recommend_shelves(scorer, sequences, torch.arange(len(sequences)), sizes)
    arrays = {shelf: top.items.int().numpy() for shelf, top in found.items()}
    return {"lists": arrays["new"]} if filtered else {"lists": arrays["all"], "new_lists": arrays["new"]}


def main() -> None:
    """Fit, rank, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("model", "rule"))
    parser.add_argument("name")
    parser.add_argument("conf", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", type=json.loads)
    arguments = parser.parse_args()
    settings = arguments.settings
    torch.set_num_threads(settings["threads"])
    config, dataset = config_of(arguments.conf, settings), Dataset.open(arguments.dataset)
    started = time.perf_counter()
    make = model if arguments.kind == "model" else rule
    scorer, told = make(arguments.name, config, dataset, settings)
    fitted = time.perf_counter()
    filtered = config.evaluate.seen == "filter"
    lists = lists_of(scorer, dataset, filtered, FEW if settings["quick"] else EVERYBODY)
    seconds = {"fit_seconds": fitted - started, "list_seconds": time.perf_counter() - fitted}
    write(arguments.out, lists, {**seconds, "peak_bytes": peak_bytes(), **told})


if __name__ == "__main__":
    main()

"""Do the trained interests find the planted ones?  python -m benchmarks.interests

Generates a log whose users have three planted interests each, trains the default recipe, its K = 1 twin and the paper
preset, and compares the grouping of every user's behaviours by interest with the planted clusters (adjusted Rand index:
1 = found, 0 = chance), trained and untrained. One process, no Ray: it measures the model.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from mind_core.diagnostics import cluster_agreement, pairwise_cosine
from mind_core.evaluation import Targets, evaluate
from mind_core.features import Bags, item_bags
from mind_core.inference import MINDRetriever
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.sequences import Sequences, full_histories
from mind_core.special_rows import FIRST_ITEM
from mind_core.training import Trainer
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.preprocess.synthetic import generate
from pipelines.training.memory_input import MemoryInput

BASE = Path(__file__).parents[1] / "conf" / "beauty.yaml"  # only its model, loss and optimiser, which are the defaults


@dataclass(frozen=True)
class Planted:
    """A generated log: training histories, the last event of each user to find, and each item's cluster."""

    histories: Sequences
    targets: Targets
    clusters: torch.Tensor  # (V,) by item index
    items: int  # V


@dataclass(frozen=True)
class Result:
    """The figures of one model: adjusted Rand index, mean cosine between a user's interests, Recall@20."""

    agreement: float
    cosine: float
    recall: float


def planted_log(users: int, events_per_user: int, items: int, clusters: int, seed: int = 0) -> Planted:
    """Generate a log without features: only behaviour can tell the clusters apart."""
    with tempfile.TemporaryDirectory() as folder:
        made = generate(folder, users * events_per_user, users, items, clusters=clusters, seed=seed, features=False)
        events = pq.read_table(made.events).sort_by([("user_id", "ascending"), ("time", "ascending")])
        truth = pq.read_table(made.truth)
    user, item = events["user_id"].to_numpy(), events["item_id"].to_numpy()
    ids, cluster = truth["item_id"].to_numpy(), truth["cluster"].to_numpy()
    order = np.argsort(ids)
    index = torch.from_numpy(np.searchsorted(ids[order], item) + FIRST_ITEM)
    lengths = torch.from_numpy(np.unique(user, return_counts=True)[1])
    ends = lengths.cumsum(0)
    last = torch.zeros(len(index), dtype=torch.bool)
    last[ends - 1] = True
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (lengths - 1).cumsum(0)])
    by_index = torch.cat(
        [torch.zeros(FIRST_ITEM, dtype=torch.int64), torch.from_numpy(cluster[order].astype(np.int64))]
    )
    targets = Targets(index[last].int(), torch.arange(len(lengths) + 1))
    return Planted(Sequences(index[~last].int(), offsets), targets, by_index, len(ids) + FIRST_ITEM)


def train(log: Planted, config: Config, epochs: int, seed: int = 0) -> tuple[MIND, Bags]:
    """Train on the histories; 0 epochs give the untrained model."""
    model, bags = MIND(config.model, log.items, [], [], seed), item_bags([], log.items)
    counts = torch.bincount(log.histories.items.long(), minlength=log.items)
    trainer = Trainer(
        model,
        bags,
        NegativeSampler(config.loss, counts),
        config.optim,
        total_steps=0,
        seed=seed,
        behaviour_dropout=config.train.behaviour_dropout,
    )
    settings = config.train.model_copy(update={"epochs": epochs, "batch_size": 1024, "seed": seed})
    for step in MemoryInput(settings, log.histories).steps(0):
        trainer.train_step(step.sequences, step.samples)
    return model, bags


def measure(log: Planted, model: MIND, bags: Bags) -> Result:
    """Compare the model's grouping of the histories with the planted clusters."""
    retriever = MINDRetriever.of(model, bags)
    long = (log.histories.lengths >= 8).nonzero().squeeze(1)  # from 8 behaviours on, K'_u is 3 and more
    histories = full_histories(log.histories, long, model.config.max_history, model.config.max_history)
    interests, own, weights = retriever.route(histories)
    agreement = cluster_agreement(weights, histories.mask, log.clusters[histories.items])
    found = evaluate(retriever, log.histories, log.targets, long, [20], exclude_seen=False)
    cosine = pairwise_cosine(interests, own).nanmean()
    return Result(float(agreement.nanmean()), float(cosine), float(found.metrics["recall@20"].mean()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    log = planted_log(options.users, 40, 2000, 20, options.seed)
    table = Table("model", "agreement (ARI)", "interest cosine", "Recall@20", title="Planted interests")
    for preset, sets, epochs in (
        ("default", [], 0),
        ("default", [], options.epochs),
        ("default", ["model.interests=1"], options.epochs),
        ("paper", [], 0),
        ("paper", [], options.epochs),
    ):
        config = load_config(BASE, sets, preset)
        result = measure(log, *train(log, config, epochs, options.seed))
        name = f"{preset}, K = {config.model.interests}" + ("" if epochs else ", untrained")
        table.add_row(name, f"{result.agreement:.3f}", f"{result.cosine:.3f}", f"{result.recall:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""Are the lists of one user at a time, of batches and of `mind evaluate` the same, item by item? Part of
benchmarks/retrieve.py
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cli_runs import mind
from benchmarks.measure import REPOSITORY, Options, say
from benchmarks.report import Finding, Sheet, Target
from mind_core.evaluation import evaluate
from mind_core.inference import recommend
from mind_core.search import inner_products
from mind_core.sequences import full_histories
from mind_core.shelves import history_pairs
from pipelines.config.load import load_config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import to_targets
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.find import find_model
from pipelines.models.over_users import SLICE_USERS

DATA = {"Beauty": "conf/beauty.yaml", "ML-1M": "conf/ml-1m.yaml"}
TRAINED = ("train.epochs=1",)
TOP = 100
BRUTE = 200  # users whose whole catalogue is scored and sorted


@dataclass(frozen=True)
class Compared:
    """Shares of all users whose list is that of `mind evaluate` in every place; users/s of each way."""

    users: int
    batch: float
    alone: float
    brute: float
    users_per_second: float
    milliseconds: float


def run(options: Options) -> Finding:
    """Compare on both data sets."""
    found = {name: _compared(*_trained(conf, options), options.quick) for name, conf in DATA.items()}
    rows = [
        [name, f"{each.users:,}", f"{each.batch:.4f}", f"{each.alone:.4f}", f"{each.brute:.4f}",
         f"{each.users_per_second:,.0f}", f"{each.milliseconds:.2f}"]
        for name, each in found.items()
    ]  # fmt: skip
    columns = ["data", "users", "in batches", "one at a time", "sorted catalogue", "users/s in batches", "one user, ms"]
    notes = [f"share of users whose top {TOP} is that of mind evaluate, item by item; sorted catalogue: {BRUTE} users"]
    targets = [
        Target(f"{name}: lists like mind evaluate's, {how}", getattr(each, how), 1.0)
        for name, each in found.items()
        for how in ("batch", "alone", "brute")
    ]
    return Finding({name: vars(each) for name, each in found.items()}, [Sheet("Lists", columns, rows, notes)], targets)


def _trained(conf: str, options: Options) -> tuple[Dataset, SavedModel]:
    """Find the data set and the model in the benchmark's home, or make them."""
    home = options.cache / "retrieve-home"
    sets = [word for text in TRAINED for word in ("--set", text)]
    config = load_config(REPOSITORY / conf, [f"home={home}", *TRAINED])
    if not (config.dataset_path / "manifest.json").is_file():
        say(f"  mind preprocess {conf}")
        mind("preprocess", conf, "--home", str(home))
    dataset = Dataset.open(config.dataset_path)
    if not any((home / "models").glob(f"{config.name}-*/config.json")):
        say(f"  mind train {conf}")
        mind("train", conf, "--home", str(home), *sets)
    return dataset, load_model(Path(find_model(config, dataset)))


def _compared(dataset: Dataset, model: SavedModel, quick: bool) -> Compared:
    table = dataset.table("test")
    table = table.slice(0, 500) if quick else table
    exclude_seen, everyone = model.card.exclude_seen, torch.arange(len(table))
    sequences, wanted = model.sequences(table), []
    for start in range(0, len(table), SLICE_USERS):  # as `mind evaluate` does: slices of the split's rows
        rows = table.slice(start, SLICE_USERS)
        some = torch.arange(len(rows))
        outcome = evaluate(
            model.retriever, model.sequences(rows), to_targets(rows), some, [TOP], exclude_seen=exclude_seen
        )
        lists = torch.zeros(len(rows), TOP, dtype=torch.int64)
        lists[outcome.users] = outcome.top_items
        wanted.append(lists)
    ranking = torch.cat(wanted)
    counted = (ranking > 0).any(1)  # users whose targets all lie in the history are not evaluated
    started = time.perf_counter()
    batch = recommend(model.retriever, sequences, everyone, TOP, exclude_seen=exclude_seen).items
    together = time.perf_counter() - started
    alone, seconds = [], []
    for user in everyone.split(1):
        started = time.perf_counter()
        alone.append(recommend(model.retriever, sequences, user, TOP, exclude_seen=exclude_seen).items)
        seconds.append(time.perf_counter() - started)
    return Compared(
        users=int(counted.sum()),
        batch=_same(batch, ranking, counted),
        alone=_same(torch.cat(alone), ranking, counted),
        brute=_same(_brute(model, table, exclude_seen), ranking[:BRUTE], counted[:BRUTE]),
        users_per_second=len(table) / together,
        milliseconds=1000 * sorted(seconds)[len(seconds) // 2],
    )


def _same(lists: Tensor, ranking: Tensor, counted: Tensor) -> float:
    return float((lists == ranking).all(1)[counted].float().mean())


def _brute(model: SavedModel, table: object, exclude_seen: bool) -> Tensor:
    """Score every item for some users, and sort."""
    rows = table.slice(0, BRUTE)  # type: ignore[attr-defined]
    sequences, users, retriever = model.sequences(rows), torch.arange(len(rows)), model.retriever
    histories = full_histories(sequences, users, retriever.view)
    vectors, own = retriever.interests(histories)
    memory, found = retriever.memory(histories, vectors, own), []
    row, item = history_pairs(sequences, users)
    for user in users.tolist():
        each = inner_products(vectors[user][own[user]].unsqueeze(1), retriever.item_vectors)  # (K', V)
        scores = each.amax(0)
        if memory is not None:
            assert histories.newest is not None
            kept = histories.newest[user]
            scores[histories.items[user][kept]] += memory[user][kept]
        scores[:2] = float("-inf")
        if exclude_seen:
            scores[item[row == user]] = float("-inf")
        found.append(scores.sort(descending=True, stable=True).indices[:TOP])
    return torch.stack(found)

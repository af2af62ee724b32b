"""torch-rechub's own MIND and MatchTrainer, as its tutorial run_ml_mind.py puts them together. No Ray, no mind_core.

    PYTHON rechub.py speed DATA.npz     samples/s and where a step's time goes, as JSON
    PYTHON rechub.py quality DATA.npz   trains and evaluates by turns; see benchmarks/quality_loop.py for the protocol

PYTHON is that of benchmarks/peers/install.py. As in the tutorial: list-wise loss over the label and 3 negatives that
are drawn once, by count ** 0.75; Adam with weight decay 1e-6; a DataLoader over arrays without worker processes.
In its favour: histories hold the newest items (the tutorial cuts the newest off), arrays are int32, and in `speed` no
table of users is trained beside that of the items.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.matching import MIND
from torch_rechub.trainers import MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator
from torch_rechub.utils.match import negative_sample

WEIGHT_DECAY = 1e-6
NEGATIVES = 3
BY_COUNT = 1  # its sample_method: count ** 0.75
PROFILE_DIM = 16
WARM_UP, PROFILED = 3, 8  # steps
EVALUATED_AT_ONCE = 128
FIRST_ITEM = 2  # index 0 is padding, 1 unknown

Arrays = dict[str, np.ndarray]


def windows(items: np.ndarray, offsets: np.ndarray, users: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """(n, length) int32: the newest items before `ends`, padded with 0 at the end as the tutorial does."""
    starts = np.maximum(offsets[users], ends - length)
    place = starts[:, None] + np.arange(length)
    inside = place < ends[:, None]
    return np.where(inside, items[np.where(inside, place, 0)], 0).astype(np.int32)


def training_samples(data: Arrays, length: int, limit: int | None) -> Arrays:
    """What `generate_seq_feature_match` and `gen_model_input` make, without their loop over users.

    Every event but a user's first is a label; `limit` takes a random part of them.
    """
    items, offsets = data["items"], data["offsets"]
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    positions = np.flatnonzero(np.arange(len(items)) != offsets[owner])
    if limit is not None:
        positions = np.random.default_rng(0).permutation(positions)[:limit]
    counts = np.bincount(items, minlength=int(data["item_rows"]))
    order = np.argsort(-counts, kind="stable")
    popular = {int(item): int(counts[item]) for item in order if counts[item] and item >= FIRST_ITEM}
    drawn = np.asarray(negative_sample(popular, ratio=len(positions) * NEGATIVES, method_id=BY_COUNT))
    users = owner[positions]
    return {
        "hist_item_id": windows(items, offsets, users, positions, length),
        "item_id": items[positions].astype(np.int32),
        "neg_items": drawn.reshape(-1, NEGATIVES).astype(np.int32),
        **profile_columns(data, "train", users),
    }


def profile_columns(data: Arrays, split: str, users: np.ndarray) -> Arrays:
    """The user's number and profile features; one constant where none are wanted."""
    if f"{split}_profile" not in data:
        return {"constant": np.zeros(len(users), dtype=np.int32)}
    columns = data[f"{split}_profile"][users]
    return {f"profile_{number}": columns[:, number].astype(np.int32) for number in range(columns.shape[1])}


def make_model(data: Arrays, length: int, dim: int, interests: int) -> MIND:
    """The tutorial's features and model."""
    rows = int(data["item_rows"])
    sizes = data.get("profile_sizes", np.array([], dtype=np.int64))
    user_features = [SparseFeature(f"profile_{n}", int(size), PROFILE_DIM) for n, size in enumerate(sizes)]
    if not user_features:  # it cannot do without
        user_features = [SparseFeature("constant", 1, PROFILE_DIM)]
    shared = {"vocab_size": rows, "embed_dim": dim, "pooling": "concat", "shared_with": "item_id"}
    return MIND(
        user_features,
        [SequenceFeature("hist_item_id", **shared)],
        [SparseFeature("item_id", rows, dim)],
        [SequenceFeature("neg_items", **shared)],
        max_length=length,
        temperature=0.02,
        interest_num=interests,
    )


def make_trainer(model: MIND, learning_rate: float) -> MatchTrainer:
    """Its trainer with its default optimiser, torch.optim.Adam."""
    return MatchTrainer(model, mode=2, optimizer_params={"lr": learning_rate, "weight_decay": WEIGHT_DECAY})


def make_loader(samples: Arrays, batch: int, workers: int) -> DataLoader:
    """Its training loader; label 0 says that the first score is the positive one."""
    labels = np.zeros(len(samples["item_id"]), dtype=np.int64)
    nothing = {name: values[:1] for name, values in samples.items()}
    return MatchDataGenerator(samples, labels).generate_dataloader(nothing, nothing, batch, num_workers=workers)[0]


def speed(data: Arrays, arguments: argparse.Namespace) -> None:
    """Time `train_one_epoch`, then take a few more steps apart."""
    started = time.perf_counter()
    wanted = arguments.batch * (WARM_UP + arguments.steps + PROFILED)
    samples = training_samples(data, arguments.length, wanted)
    trainer = make_trainer(make_model(data, arguments.length, arguments.dim, arguments.interests), 1e-3)
    ready = time.perf_counter() - started

    def steps_of(first: int, count: int) -> DataLoader:
        part = slice(first * arguments.batch, (first + count) * arguments.batch)
        return make_loader({k: v[part] for k, v in samples.items()}, arguments.batch, arguments.loader_workers)

    trainer.train_one_epoch(steps_of(0, WARM_UP))
    loader = steps_of(WARM_UP, arguments.steps)
    started = time.perf_counter()
    trainer.train_one_epoch(loader)
    seconds = time.perf_counter() - started
    parts = profile(trainer, steps_of(WARM_UP + arguments.steps, PROFILED))
    rate = arguments.steps * arguments.batch / seconds
    print(json.dumps({"samples_per_second": rate, "ready_seconds": ready, "step_parts_seconds": parts}))


def profile(trainer: MatchTrainer, loader: DataLoader) -> dict[str, float]:
    """Seconds per step by part, from a stopwatch around its own calls."""
    spent: dict[str, float] = {}

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*words: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*words, **named)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - started

        return run

    backward = torch.Tensor.backward
    trainer.model.forward = watched("forward", trainer.model.forward)
    trainer.optimizer.step = watched("optimiser (dense Adam)", trainer.optimizer.step)
    torch.Tensor.backward = watched("backward", backward)
    fetch = watched("data loader", next)
    started = time.perf_counter()
    batches = iter(loader)
    trainer.train_one_epoch(fetch(batches) for _ in range(len(loader)))
    total = time.perf_counter() - started
    torch.Tensor.backward = backward
    spent["rest"] = total - sum(spent.values())
    return {name: seconds / len(loader) for name, seconds in spent.items()}


def quality(data: Arrays, arguments: argparse.Namespace) -> None:
    """Train until each number of seconds that standard input asks for; answer with the HitRate@20 reached."""
    torch.manual_seed(arguments.seed)
    np.random.seed(arguments.seed)
    samples = training_samples(data, arguments.length, None)
    model = make_model(data, arguments.length, arguments.dim, arguments.interests)
    trainer = make_trainer(model, arguments.learning_rate)
    batches = endless(make_loader(samples, arguments.batch, arguments.loader_workers))
    answer({"ready": True})
    spent, steps = 0.0, 0

    def until(end: float) -> Iterator[Any]:
        nonlocal steps
        while time.perf_counter() < end:
            steps += 1
            yield next(batches)

    for line in sys.stdin:
        started = time.perf_counter()
        trainer.train_one_epoch(until(started + float(line) - spent))
        spent += time.perf_counter() - started
        reached = hit_rate(model, data, arguments.length)
        answer({"seconds": spent, "samples": steps * arguments.batch, "hit_rate": reached})


def endless(loader: DataLoader) -> Iterator[Any]:
    """Epoch after epoch of batches."""
    while True:
        yield from loader


def answer(values: dict[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(values), flush=True)


@torch.no_grad()
def hit_rate(model: MIND, data: Arrays, length: int, top: int = 20) -> float:
    """Full ranking by the best match over the interests, seen items left out, ties counted against the model."""
    model.eval()
    model.mode = "item"
    vectors = model({"item_id": torch.arange(int(data["item_rows"]))})  # (V, d)
    model.mode = "user"
    offsets, hits = data["validation_offsets"], 0
    chosen = iter(data["evaluated"])
    while len(users := np.fromiter(islice(chosen, EVALUATED_AT_ONCE), dtype=np.int64)):
        history = windows(data["validation_items"], offsets, users, offsets[users + 1], length)
        columns = {"hist_item_id": history, **profile_columns(data, "validation", users)}
        interests = model({name: torch.from_numpy(values) for name, values in columns.items()})  # (B, K, d)
        scores = (interests @ vectors.T).amax(1)
        scores[:, :FIRST_ITEM] = float("-inf")
        row = np.repeat(np.arange(len(users)), offsets[users + 1] - offsets[users])
        seen = np.concatenate([data["validation_items"][offsets[u] : offsets[u + 1]] for u in users])
        scores[torch.from_numpy(row), torch.from_numpy(seen).long()] = float("-inf")
        target = torch.from_numpy(data["targets"][users]).long().unsqueeze(1)
        hits += int(((scores >= scores.gather(1, target)).sum(1) <= top).sum())
    model.mode = None
    return hits / len(data["evaluated"])


def main() -> None:
    """Read the arrays and do one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("speed", "quality"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--interests", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--loader-workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with np.load(arguments.data) as file:
        data = dict(file)
    {"speed": speed, "quality": quality}[arguments.what](data, arguments)


if __name__ == "__main__":
    main()

"""torch-rechub's MIND as a contestant of `make bench-quality` (benchmarks/peers/lists.py, benchmarks/peers/rechub.py).

    PYTHON -m benchmarks.peers.rechub_lists mind DATA.npz OUT.npz SETTINGS

Its own model and trainer, as in its tutorial; after each epoch the validation users are ranked, and the weights of the
best epoch are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch_rechub.models.matching import MIND

from benchmarks.peers.lists import (
    Arrays,
    Score,
    Settings,
    Split,
    Watch,
    compete,
    counts_of,
    validator,
)
from benchmarks.peers.rechub import make_loader, make_model, make_trainer, training_samples, windows


@torch.no_grad()
def scorer(model: MIND, length: int, counts: np.ndarray) -> Score:
    """Rank by the best match over the interests, with the weights that the model has now."""
    unseen = counts == 0
    model.eval()
    model.mode = "item"
    vectors = model({"item_id": torch.arange(len(counts))})  # (V, d)

    @torch.no_grad()
    def score(split: Split, users: np.ndarray) -> np.ndarray:
        model.eval()
        model.mode = "user"
        history = windows(split.items, split.offsets, users, split.offsets[users + 1], length)
        columns = {"hist_item_id": history, **_profile(split, users)}
        interests = model({name: torch.from_numpy(values) for name, values in columns.items()})  # (B, K, d)
        model.mode = None
        scores = (interests @ vectors.T).amax(1).numpy()
        scores[:, unseen] = -np.inf
        return scores

    model.mode = None
    return score


def _profile(split: Split, users: np.ndarray) -> Arrays:
    if split.profile is None:
        return {"constant": np.zeros(len(users), dtype=np.int32)}
    columns = split.profile[users].astype(np.int32)
    return {f"profile_{number}": columns[:, number] for number in range(columns.shape[1])}


def mind(data: Arrays, settings: Settings) -> tuple[Score, dict[str, Any]]:
    """Train as its tutorial does, epoch by epoch."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    np.random.seed(settings["seed"])
    counts, value, length = counts_of(data), validator(data, settings), settings["length"]
    samples = training_samples(data, length, settings["samples"])
    model = make_model(data, length, settings["dim"], settings["interests"])
    trainer = make_trainer(model, settings["learning_rate"])
    loader = make_loader(samples, settings["batch"], 0)
    watch = Watch(settings)
    weights: dict[str, torch.Tensor] = {}
    while watch.ended is None:
        model.train()
        trainer.train_one_epoch(_in_time(loader, watch))
        if watch.is_better(value(scorer(model, length, counts))):
            weights = {name: each.detach().clone() for name, each in model.state_dict().items()}
        print(f"epoch {watch.epoch}: {watch.curve[-1]:.4f}", file=sys.stderr, flush=True)
    model.load_state_dict(weights)
    return scorer(model, length, counts), watch.told()


def _in_time(loader: DataLoader, watch: Watch) -> Iterator[Any]:
    """Yield an epoch's batches, as long as there is time."""
    for batch in loader:
        yield batch
        if watch.out_of_time:
            return


if __name__ == "__main__":
    compete({"mind": mind})

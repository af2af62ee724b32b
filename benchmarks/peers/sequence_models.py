"""SASRec and BERT4Rec of RecTools: contestants of `make bench-quality` (benchmarks/peers/lists.py).

    PYTHON -m benchmarks.peers.sequence_models {sasrec,bert4rec} DATA.npz OUT.npz SETTINGS

RecTools trains; after each epoch the validation users are ranked, and the weights of the best epoch are kept. Ranking
is ours, from RecTools' own sessions and encoders, so that users whom training has not seen are ranked too.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel

from benchmarks.peers.lists import (
    Arrays,
    Score,
    Settings,
    Split,
    Watch,
    compete,
    counts_of,
    split_of,
    validator,
)

SILENT: dict[str, Any] = {  # of Lightning's trainer: it writes nothing
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "logger": False,
    "devices": 1,
}
DAYS_OF_2000 = pd.Timestamp("2000-01-01")


def as_interactions(train: Split) -> Dataset:
    """Make RecTools' data set; an event's place in its user's history stands for its time."""
    sizes = np.diff(train.offsets)
    place = np.arange(len(train.items)) - np.repeat(train.offsets[:-1], sizes)
    columns = {
        Columns.User: np.repeat(np.arange(len(train)), sizes),
        Columns.Item: train.items.astype(np.int64),
        Columns.Weight: 1.0,
        Columns.Datetime: DAYS_OF_2000 + pd.to_timedelta(place, unit="s"),
    }
    return Dataset.construct(pd.DataFrame(columns))


def scorer(module: LightningModule, counts: np.ndarray) -> Score:
    """Rank with the weights that the module has now; who has no item that it knows gets the popular ones."""
    preparator, net = module.data_preparator, module.torch_model.eval()
    known, inside = (
        np.asarray(found).astype(np.int64)
        for found in (preparator.get_known_item_ids(), preparator.get_known_items_sorted_internal_ids())
    )
    place = np.zeros(len(counts), np.int64)
    place[known] = inside
    with torch.no_grad():
        items = net.item_model.get_all_embeddings()
        candidates = net.similarity_module.item_tower_forward(items)[torch.from_numpy(inside).to(items.device)]
    popular = np.full(len(counts), -np.inf, np.float32)
    popular[known] = np.log1p(counts[known])

    def score(split: Split, users: np.ndarray) -> np.ndarray:
        histories = [found[found > 0] for found in (place[own] for own in split.lists(users))]
        strangers = np.array([len(found) == 0 for found in histories])
        batch = [(found.tolist() or [int(inside[0])], [], {}) for found in histories]
        with torch.no_grad():
            sessions = {name: each.to(items.device) for name, each in preparator._collate_fn_recommend(batch).items()}
            encoded = net.similarity_module.session_tower_forward(net.encode_sessions(sessions, items)[:, -1, :])
            found = (encoded @ candidates.T).cpu().numpy()
        scores = np.full((len(users), len(counts)), -np.inf, np.float32)
        scores[:, known] = found
        scores[strangers] = popular
        return scores

    return score


class BestEpoch(Callback):
    """Validates at the end of each epoch, keeps the best weights, ends the training."""

    def __init__(self, data: Arrays, settings: Settings):
        self.counts, self.value, self.watch = counts_of(data), validator(data, settings), Watch(settings)
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Say so when the time is over; Lightning ends at the end of the step."""
        if self.watch.out_of_time:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        if self.watch.is_better(self.value(scorer(pl_module, self.counts))):
            self.weights = {name: each.detach().clone() for name, each in pl_module.torch_model.state_dict().items()}
        trainer.should_stop = self.watch.ended is not None
        pl_module.train()


def prepare(threads: int, seed: int) -> None:
    """Keep Lightning and RecTools from talking, and everything random to a seed."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|rectools|torch")
    torch.set_num_threads(threads)
    seed_everything(seed)


def fit(
    kind: type[SASRecModel] | type[BERT4RecModel], data: Arrays, settings: Settings
) -> tuple[Score, dict[str, Any]]:
    """Train RecTools' model with a trainer of its own that knows when to stop."""
    prepare(settings["threads"], settings["seed"])
    names = ("n_factors", "n_blocks", "n_heads", "dropout_rate", "session_max_len", "batch_size", "loss", "lr")
    model = kind(**{name: settings[name] for name in names}, epochs=settings["epochs"])
    callbacks: list[Callback] = [BestEpoch(data, settings)]
    model._trainer = Trainer(**SILENT, max_epochs=settings["epochs"], min_epochs=1, callbacks=callbacks)
    model.fit(as_interactions(split_of(data, "train")))
    (best,) = (each for each in model.fit_trainer.callbacks if isinstance(each, BestEpoch))  # fit takes a copy
    model.torch_model.load_state_dict(best.weights)
    return scorer(model.lightning_model, best.counts), best.watch.told()


if __name__ == "__main__":
    compete(
        {
            "sasrec": lambda data, settings: fit(SASRecModel, data, settings),
            "bert4rec": lambda data, settings: fit(BERT4RecModel, data, settings),
        }
    )

"""Generated training steps at any table size. Needs nothing but torch and mind_core.

The same seed gives the same users, positions and history lengths at every size: only which rows are touched differs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.measure import available_bytes
from mind_core.config import LossConfig, ModelConfig, OptimConfig
from mind_core.embeddings import WHOLE, Shard
from mind_core.features import item_bags
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.sequences import Samples, Sequences, windows
from mind_core.special_rows import FIRST_ITEM
from mind_core.training import Trainer

Law = Literal["zipf", "uniform"]
TableOptimizer = Literal["adam", "adagrad"]

EVENTS_PER_USER = 64
SPREAD_IDS = 2_654_435_761  # a prime: multiplying by it, modulo the number of items, permutes their ids
MAKE_UP_BYTES, SAMPLER_BYTES = 20, 8  # of an item: its bag (offset, row, weight); its share of the negatives
DROPOUT = 0.2  # of behaviours, the default recipe's
SEED = 0


@dataclass(frozen=True)
class Shape:
    """The shape of a step: d, L, K, r, B; the negatives are the default recipe's 512 uniform and 512 popular ones."""

    dim: int = 64
    history: int = 20
    interests: int = 4
    iterations: int = 3
    batch: int = 1024

    @property
    def model(self) -> ModelConfig:
        return ModelConfig(dim=self.dim, max_history=self.history, interests=self.interests, iterations=self.iterations)


def make_sequences(items: int, law: Law, events: int) -> Sequences:
    """Users of 64 events each, drawn independently.

    zipf : the item of rank r in proportion to log(1 + 1 / r), the ranks scattered over the table.
    uniform : the worst case, where hardly a row of a large table is touched twice.
    """
    generator = torch.Generator().manual_seed(SEED)
    users = max(1, events // EVENTS_PER_USER)
    uniform = torch.rand(users * EVENTS_PER_USER, generator=generator, dtype=torch.float64)
    if law == "zipf":
        rank = ((uniform * torch.tensor(items + 1.0).double().log()).exp() - 1).long().clamp_(max=items - 1)
        place = rank * SPREAD_IDS % items
    else:
        place = (uniform * items).long()
    return Sequences((place + FIRST_ITEM).int(), torch.arange(users + 1) * EVENTS_PER_USER)


def make_samples(sequences: Sequences, batch: int, steps: int, seed: int) -> list[Samples]:
    """Batches of random positions, none of them a user's first."""
    generator = torch.Generator().manual_seed(seed)
    shape = (steps, batch)
    users = torch.randint(0, len(sequences), shape, generator=generator)
    places = torch.randint(1, EVENTS_PER_USER, shape, generator=generator)
    device = sequences.offsets.device
    return [Samples(u.to(device), (u * EVENTS_PER_USER + p).to(device)) for u, p in zip(users, places, strict=True)]


def make_sampler(sequences: Sequences, items: int, loss: LossConfig) -> NegativeSampler:
    """Negatives that follow the sequences' counts."""
    return NegativeSampler(loss, torch.bincount(sequences.items.long(), minlength=items + FIRST_ITEM))


def make_trainer(
    sequences: Sequences,
    items: int,
    shape: Shape,
    *,
    loss: LossConfig | None = None,
    optimizer: TableOptimizer = "adam",
    dropout: float = DROPOUT,
    device: torch.device | None = None,
    shard: Shard = WHOLE,
) -> Trainer:
    """The default recipe over a table of `items` items without features, or over a shard of it."""
    device = device or torch.device("cpu")
    return Trainer(
        MIND(shape.model, items + FIRST_ITEM, [], [], SEED, shard).to(device),
        item_bags([], items + FIRST_ITEM).to(device),
        make_sampler(sequences, items, loss or LossConfig()).to(device),
        OptimConfig(table_optimizer=optimizer),
        total_steps=0,
        seed=SEED,
        behaviour_dropout=dropout,
    )


def row_bytes(dim: int, optimizer: TableOptimizer) -> int:
    """Bytes of a table row with its optimiser state: float32 throughout.

    adam : the row, two moments and the count of its updates.  adagrad : the row and one sum.
    """
    return 4 * dim * 3 + 4 if optimizer == "adam" else 4 * dim + 4


def fits(items: int, dim: int, device: torch.device) -> bool:
    """Whether a training with Adam fits in what memory is free now, with half as much again for its making."""
    need = 1.5 * items * (row_bytes(dim, "adam") + MAKE_UP_BYTES + SAMPLER_BYTES)
    if device.type == "cuda":
        on_host = 1.5 * items * 4 * dim  # the first weights are drawn there
        return need < torch.cuda.mem_get_info(device)[0] and on_host < (available_bytes() or float("inf"))
    return need < (available_bytes() or float("inf"))


def seconds_per_step(trainer: Trainer, sequences: Sequences, batches: list[Samples]) -> float:
    """Mean over `batches`, the device having finished before and after."""
    wait_for(trainer.device)
    started = time.perf_counter()
    for batch in batches:
        trainer.train_step(sequences, batch)
    wait_for(trainer.device)
    return (time.perf_counter() - started) / len(batches)


def device_name(device: torch.device) -> str:
    """Say what a figure was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def wait_for(device: torch.device) -> None:
    """Until all that was launched there is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def distinct_items(trainer: Trainer, sequences: Sequences, batch: Samples) -> int:
    """Number of distinct items of a step: histories, labels and negatives."""
    seen = windows(sequences, batch.users, batch.positions, trainer.model.view).items
    labels = sequences.items[batch.positions].long()
    negatives = trainer.sampler.draw(labels, torch.Generator(labels.device).manual_seed(SEED))
    return len(torch.cat([seen.flatten(), labels, negatives]).unique())

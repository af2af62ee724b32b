"""What a worker trains on: one protocol of steps, and the input that holds the whole train split in memory.

The other input, for logs larger than that, is pipelines.train_stream. Both give every sample of an epoch once (here up
to ranks - 1 of them twice), in an order that is a function of the seed alone: a resumed run knows it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from mind_core.sequences import Samples, Sequences, all_targets, draw_targets, epoch_batches
from mind_core.training import seeded
from pipelines.config import TrainConfig
from pipelines.dataset import SplitCounts

MEMORY_SHARE = 0.5  # of a worker's part of its node's memory that the train split may take
EVENT_BYTES = 60  # measured at the peak: item 4, sample 16, its place in the epoch 8, shuffling and cutting those 32
USER_BYTES = 8
PROFILE_BYTES = 20  # per user and feature: an offset, a row, a weight


@dataclass(frozen=True)
class Step:
    """One rank's part of a step.

    weight : own samples * ranks / `size`, see Trainer.train_step.
    size : samples of all ranks.
    """

    sequences: Sequences
    samples: Samples
    weight: float
    size: int


class TrainInput(Protocol):
    """This rank's samples. All ranks have equally many steps."""

    @property
    def steps_per_epoch(self) -> int: ...

    def steps(self, first: int) -> Generator[Step]:
        """The run's steps from number `first` on, epoch after epoch."""
        ...

    def label_counts(self, items: int) -> Tensor:
        """(items,) how often each item is a label in an epoch, up to a factor: what in-batch negatives follow."""
        ...


def memory_bytes(counts: SplitCounts, profile_features: int) -> int:
    """What holding the split in memory takes a worker, at the peak."""
    return counts.events * EVENT_BYTES + counts.users * (USER_BYTES + profile_features * PROFILE_BYTES)


def choose_input(
    config: TrainConfig, counts: SplitCounts, profile_features: int, node_memory: float
) -> Literal["memory", "stream"]:
    """What `train.input: auto` means for a train split, with all workers on one node of `node_memory` bytes."""
    if config.input != "auto":
        return config.input
    fits = memory_bytes(counts, profile_features) <= MEMORY_SHARE * node_memory / config.workers
    return "memory" if fits else "stream"


class MemoryInput:
    """All sequences in memory: every worker plans the same global batches and takes every W-th sample of each."""

    def __init__(self, config: TrainConfig, sequences: Sequences, rank: int = 0, ranks: int = 1):
        self.config, self.sequences, self.rank, self.ranks = config, sequences, rank, ranks
        self.every = all_targets(sequences) if config.targets_per_user is None else None

    def samples(self, epoch: int) -> Samples:
        """The samples of an epoch, in file order."""
        if self.every is not None:
            return self.every
        assert self.config.targets_per_user is not None
        generator = seeded("cpu", self.config.seed, "targets", epoch)
        cpu = Sequences(self.sequences.items.cpu(), self.sequences.offsets.cpu())
        drawn = draw_targets(cpu, self.config.targets_per_user, generator)
        return Samples(drawn.users.to(self.sequences.items.device), drawn.positions.to(self.sequences.items.device))

    def batches(self, epoch: int) -> list[Tensor]:
        """Global batches of an epoch: index tensors into `samples`."""
        generator = seeded("cpu", self.config.seed, "order", epoch)
        return epoch_batches(self.size, self.config.batch_size, self.ranks, generator)

    @property
    def size(self) -> int:
        """Samples of an epoch."""
        if self.every is not None:
            return len(self.every)
        return int((self.sequences.lengths >= 2).sum()) * (self.config.targets_per_user or 0)

    @property
    def steps_per_epoch(self) -> int:
        return epoch_steps(self.size, self.config.batch_size, self.ranks)

    def steps(self, first: int) -> Generator[Step]:
        start, done = divmod(first, self.steps_per_epoch)
        for epoch in range(start, self.config.epochs):
            samples = self.samples(epoch)
            for batch in self.batches(epoch)[done:]:
                own = samples[batch[self.rank :: self.ranks].to(self.sequences.items.device)]
                yield Step(self.sequences, own, 1.0, len(batch))
            done = 0

    def label_counts(self, items: int) -> Tensor:
        return count_labels(self.sequences, self.config.targets_per_user is not None, items)


def epoch_steps(samples: int, batch_size: int, ranks: int) -> int:
    """Steps of an epoch, each of at most batch_size // ranks samples per rank: the same for both inputs."""
    return -(-samples // (ranks * rank_batch(batch_size, ranks)))


def rank_batch(batch_size: int, ranks: int) -> int:
    """Samples of a rank in a full step."""
    return max(1, batch_size // ranks)


def count_labels(sequences: Sequences, drawn: bool, items: int) -> Tensor:
    """(items,) labels in an epoch; `drawn`: each user has equally many, uniform over all positions but the first."""
    samples = all_targets(sequences)
    labels = sequences.items[samples.positions].long()
    weights = 1.0 / (sequences.lengths[samples.users] - 1).double() if drawn else None
    return torch.bincount(labels, weights, minlength=items)

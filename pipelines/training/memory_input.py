"""What a worker trains on: one protocol of steps, and the input that holds the whole train split in memory.

The other input, for logs larger than that, is pipelines.training.stream_input. Both give every sample of an epoch once
(here up to ranks - 1 of them twice), in an order that is a function of the seed alone: a resumed run knows it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from mind_core.sequences import AllTargets, DrawnTargets, Samples, Sequences
from mind_core.shuffle import Permutation
from pipelines.config.schema import TrainConfig
from pipelines.dataset.dataset import SplitCounts

MEMORY_SHARE = 0.5  # of a worker's part of its node's memory that the train split may take
# measured: how resident memory grows while 20 M and 50 M events of 0.2 M to 5 M users are read and trained on
EVENT_BYTES = 14  # item 4, and what reading it leaves to Arrow's pool; steps add some 20 MB, however many events
USER_BYTES = 24  # where a sequence begins 8, where its samples begin 8, and while those are found 8
PROFILE_BYTES = 20  # per user and feature: an offset, a row, a weight
CHUNK = 2**16  # samples whose places are computed together


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
        """Yield the run's steps from number `first` on, epoch after epoch."""
        ...

    def label_counts(self, items: int) -> Tensor:
        """Count, up to a factor, how often each item is a label in an epoch, (items,): in-batch negatives follow it."""
        ...


def memory_bytes(counts: SplitCounts, profile_features: int) -> int:
    """Say what holding the split in memory takes a worker, at the peak."""
    return counts.events * EVENT_BYTES + counts.users * (USER_BYTES + profile_features * PROFILE_BYTES)


def choose_input(
    config: TrainConfig, counts: SplitCounts, profile_features: int, node_memory: float
) -> Literal["memory", "stream"]:
    """Say what `train.input: auto` means for a train split, all workers on one node of `node_memory` bytes."""
    if config.input != "auto":
        return config.input
    if config.include_validation:  # the streamed files have none of it
        return "memory"
    fits = memory_bytes(counts, profile_features) <= MEMORY_SHARE * node_memory / config.workers
    return "memory" if fits else "stream"


class MemoryInput:
    """All sequences in memory: every worker knows the same global batches and takes every W-th sample of each.

    Nothing else here grows with the number of events: which samples a step has is computed from its number.
    """

    def __init__(self, config: TrainConfig, sequences: Sequences, rank: int = 0, ranks: int = 1):
        self.config, self.sequences, self.rank, self.ranks = config, sequences, rank, ranks
        self.every = AllTargets(sequences) if config.targets_per_user is None else None
        self.size = len(self.samples(0))  # of every epoch

    def samples(self, epoch: int) -> AllTargets | DrawnTargets:
        """Return the samples of an epoch, in file order."""
        if self.every is not None:
            return self.every
        assert self.config.targets_per_user is not None
        return DrawnTargets(self.sequences, self.config.targets_per_user, self.config.seed, "targets", epoch)

    @property
    def steps_per_epoch(self) -> int:
        return epoch_steps(self.size, self.config.batch_size, self.ranks)

    def steps(self, first: int) -> Generator[Step]:
        start, done = divmod(first, self.steps_per_epoch)
        for epoch in range(start, self.config.epochs):
            yield from self._epoch_steps(epoch, done)
            done = 0

    def _epoch_steps(self, epoch: int, done: int) -> Iterator[Step]:
        """Yield the steps of an epoch but for the first `done`.

        At most ranks - 1 samples come twice, so that all ranks do the same number of steps on equally many samples.
        """
        samples, order = self.samples(epoch), Permutation(self.size, self.config.seed, "order", epoch)
        each, device = rank_batch(self.config.batch_size, self.ranks), self.sequences.offsets.device
        at_a_time = each * max(1, CHUNK // each)
        for places in _ranges(done * each, -(-self.size // self.ranks), at_a_time, device):
            own = samples[order[(places * self.ranks + self.rank) % self.size]]
            for users, positions in zip(own.users.split(each), own.positions.split(each), strict=True):
                yield Step(self.sequences, Samples(users, positions), 1.0, len(users) * self.ranks)

    def label_counts(self, items: int) -> Tensor:
        return count_labels(self.sequences, self.config.targets_per_user is not None, items)


def epoch_steps(samples: int, batch_size: int, ranks: int) -> int:
    """Count the steps of an epoch, each of at most batch_size // ranks samples per rank: the same for both inputs."""
    return -(-samples // (ranks * rank_batch(batch_size, ranks)))


def rank_batch(batch_size: int, ranks: int) -> int:
    """Count the samples of a rank in a full step."""
    return max(1, batch_size // ranks)


def count_labels(sequences: Sequences, drawn: bool, items: int) -> Tensor:
    """Count labels in an epoch, (items,) float64; `drawn`: users have equally many, uniform over all but the first."""
    samples, device = AllTargets(sequences), sequences.items.device
    counts = torch.zeros(items, dtype=torch.float64, device=device)
    for numbers in _ranges(0, len(samples), CHUNK, device):
        found = samples[numbers]
        choices = sequences.offsets[found.users + 1] - sequences.offsets[found.users] - 1
        weight = 1.0 / choices.double() if drawn else torch.ones_like(choices, dtype=torch.float64)
        counts.index_add_(0, sequences.items[found.positions].long(), weight)
    return counts


def _ranges(first: int, stop: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield the numbers from `first` to `stop` - 1, so many at a time."""
    for start in range(first, stop, size):
        yield torch.arange(start, min(start + size, stop), device=device)

"""What a worker trains on: one protocol of steps, and the input that holds the whole train split in memory.

The other input, for logs larger than that, is pipelines.training.stream_input. Both give every sample of an epoch once
(here up to ranks - 1 of them twice), in an order that is a function of the seed alone: a resumed run knows it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from mind_core.sequences import AllTargets, DrawnTargets, Samples, Sequences, WindowEnds
from mind_core.shuffle import Permutation
from pipelines.config.schema import TrainConfig
from pipelines.dataset.dataset import SplitCounts
from pipelines.errors import UserError

MEMORY_SHARE = 0.5  # of a worker's part of its node's memory that the train split may take
# measured: how resident memory grows while 20 M and 50 M events of 0.2 M to 5 M users are read and trained on
EVENT_BYTES = 14  # item 4, and what reading it leaves to Arrow's pool; steps add some 20 MB, however many events
REPEATS_BYTES = 20  # of it and of each event, where a model asks for traits: mind_core.repeats
USER_BYTES = 24  # where a sequence begins 8, where its samples begin 8, and while those are found 8
LABEL_BYTES = 22  # and of each event, where times say which are labels: its time, 8, and 14 until that is known
PROFILE_BYTES = 20  # per user and feature: an offset, a row, a weight
CHUNK = 2**16  # samples whose places are computed together


SamplesByNumber = AllTargets | DrawnTargets | WindowEnds


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

    def histories(self) -> Iterable[Sequences]:
        """Yield the sequences of this rank's share of the users, in portions that fit in memory, for what begins with
        their events `before_labels`."""
        ...

    def label_counts(self, items: int) -> Tensor:
        """Count, up to a factor, how often each item is a label in an epoch, (items,): in-batch negatives follow it."""
        ...


def memory_bytes(counts: SplitCounts, profile_features: int, *, traits: bool = False, timed: bool = False) -> int:
    """Say what holding the split in memory takes a worker, at the peak.

    traits : the model asks for them.  timed : times say which events are labels.
    """
    event = EVENT_BYTES + REPEATS_BYTES * traits + LABEL_BYTES * timed
    return counts.events * event + counts.users * (USER_BYTES + profile_features * PROFILE_BYTES)


def choose_input(
    config: TrainConfig,
    counts: SplitCounts,
    profile_features: int,
    node_memory: float,
    *,
    traits: bool = False,
    timed: bool = False,
) -> Literal["memory", "stream"]:
    """Say what `train.input: auto` means for a train split, all workers on one node of `node_memory` bytes."""
    if config.input != "auto":
        return config.input
    if config.include_validation:  # the streamed files have none of it
        return "memory"
    fits = (
        memory_bytes(counts, profile_features, traits=traits, timed=timed)
        <= MEMORY_SHARE * node_memory / config.workers
    )
    return "memory" if fits else "stream"


class MemoryInput:
    """All sequences in memory: every worker knows the same global batches and takes every W-th sample of each.

    Nothing else here grows with the number of events: which samples a step has is computed from its number.
    `max_history` is the model's; windows of `train.labels_per_window` are as long.
    """

    def __init__(self, config: TrainConfig, sequences: Sequences, rank: int = 0, ranks: int = 1, max_history: int = 1):
        self.config, self.sequences, self.rank, self.ranks = config, sequences, rank, ranks
        self.max_history = max_history
        self.size = require_samples(len(self.samples(0)), config)  # of every epoch

    def samples(self, epoch: int) -> SamplesByNumber:
        """Return the samples of an epoch, in file order."""
        return samples_of(self.config, self.sequences, self.max_history, self.config.seed, "targets", epoch)

    @property
    def steps_per_epoch(self) -> int:
        return epoch_steps(self.size, self.config.samples_per_step, self.ranks)

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
        each, device = rank_batch(self.config.samples_per_step, self.ranks), self.sequences.offsets.device
        at_a_time = each * max(1, CHUNK // each)
        for places in _ranges(done * each, -(-self.size // self.ranks), at_a_time, device):
            own = samples[order[(places * self.ranks + self.rank) % self.size]]
            for users, positions in zip(own.users.split(each), own.positions.split(each), strict=True):
                yield Step(self.sequences, Samples(users, positions), 1.0, len(users) * self.ranks)

    def histories(self) -> Iterable[Sequences]:
        if self.ranks == 1:
            return [self.sequences]
        known = self.sequences.before_labels
        own = torch.arange(len(known), device=known.device) % self.ranks == self.rank
        return [replace(self.sequences, past=known * own)]

    def label_counts(self, items: int) -> Tensor:
        return count_labels(self.sequences, self.config.targets_per_user is not None, items)


def samples_of(config: TrainConfig, sequences: Sequences, max_history: int, *key: object) -> SamplesByNumber:
    """Choose what a sample is: an event, one of `targets_per_user` drawn by `key`, or a window of `max_history`."""
    if config.labels_per_window is not None:
        return WindowEnds(sequences, max_history)
    if config.targets_per_user is not None:
        return DrawnTargets(sequences, config.targets_per_user, *key)
    return AllTargets(sequences)


def require_samples(samples: int, config: TrainConfig) -> int:
    """Return the samples of an epoch.

    Raises
    ------
    UserError
        If there are none: who did anything lately did it for the first time.
    """
    if not samples:
        raise UserError(f"train.label_share={config.label_share:g}: none of the newest events comes after another of "
                        "its user, so there is nothing to predict; give a larger share, at most 1"
                        )  # fmt: skip
    return samples


def epoch_steps(samples: int, batch_size: int, ranks: int) -> int:
    """Count the steps of an epoch, each of at most batch_size // ranks samples per rank: the same for both inputs."""
    return -(-samples // (ranks * rank_batch(batch_size, ranks)))


def rank_batch(batch_size: int, ranks: int) -> int:
    """Count the samples of a rank in a full step."""
    return max(1, batch_size // ranks)


def count_labels(sequences: Sequences, drawn: bool, items: int) -> Tensor:
    """Count labels in an epoch, (items,) float64; `drawn`: users have equally many, uniform over theirs."""
    samples, device = AllTargets(sequences), sequences.items.device
    counts = torch.zeros(items, dtype=torch.float64, device=device)
    choices = sequences.choices() if drawn else None
    for numbers in _ranges(0, len(samples), CHUNK, device):
        found = samples[numbers]
        weight = torch.ones(len(found), dtype=torch.float64, device=device)
        if choices is not None:
            weight /= choices[found.users]
        counts.index_add_(0, sequences.items[found.positions].long(), weight)
    return counts


def _ranges(first: int, stop: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield the numbers from `first` to `stop` - 1, so many at a time."""
    for start in range(first, stop, size):
        yield torch.arange(start, min(start + size, stop), device=device)

"""The train split as a stream, for logs larger than a worker's memory; the protocol is
pipelines.training.memory_input's.

    parts    the split's files, in a new order each epoch, cut into equal shares of samples: one per rank
    windows  consecutive parts of a share, about train.shuffle_events events; their samples are shuffled
    batches  a rank's samples, window after window, cut into steps

Where a share or a window is cut follows from the parts' sizes (in their footers) alone. So every rank knows without
asking how many samples the others have, and a resumed run starts to read at the window that it was in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

import pyarrow as pa
import ray.data
import torch
from torch import Tensor

from mind_core.distributed import sum_over_ranks
from mind_core.features import Bags, FeatureSpec
from mind_core.sequences import Samples, Sequences
from mind_core.training import seeded
from pipelines.config.schema import TrainConfig
from pipelines.dataset.part_files import part_size, read_part
from pipelines.training.labels import EVERY_EVENT, LabelRule, train_sequences
from pipelines.training.memory_input import Step, count_labels, epoch_steps, rank_batch, require_samples, samples_of

T = TypeVar("T")


@dataclass(frozen=True)
class PartFile:
    """A file of the split. samples : of an epoch."""

    number: int
    path: str
    users: int
    events: int
    samples: int


@dataclass(frozen=True)
class Piece:
    """What a rank takes of a part: samples number `first` to `stop`, in file order."""

    part: PartFile
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


@dataclass(frozen=True)
class Window:
    """Pieces that lie in memory together, and are shuffled; the `number`-th of a rank's epoch."""

    epoch: int
    number: int
    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        return sum(len(piece) for piece in self.pieces)


@dataclass(frozen=True)
class Chunk:
    """Samples and the sequences that they lie in."""

    sequences: Sequences
    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def part(self, start: int, stop: int | None = None) -> Chunk:
        """Take samples number `start` to `stop`."""
        return Chunk(self.sequences, Samples(self.samples.users[start:stop], self.samples.positions[start:stop]))


Reader = Callable[[Sequence[PartFile]], Iterator[pa.Table]]
"""Yields each part as one table, in order."""


class StreamInput:
    """Holds the window that is trained on, and the next one while a thread builds it: never more of the log.

    Parameters
    ----------
    files : of the train split.
    read : `RayReader`, or in tests anything else.
    profile : the profile features.
    max_history : of the model; windows of `train.labels_per_window` are as long.
    rule : what times say of labels; `read` gives the columns that it reads.
    """

    def __init__(
        self,
        config: TrainConfig,
        files: Sequence[str],
        read: Reader,
        profile: list[FeatureSpec],
        device: torch.device,
        rank: int = 0,
        ranks: int = 1,
        max_history: int = 1,
        rule: LabelRule = EVERY_EVENT,
    ):
        self.max_history, self.rule = max_history, rule
        self.config, self.read, self.profile, self.device = config, read, profile, device
        self.rank, self.ranks = rank, ranks
        self.parts = [part_of(number, file) for number, file in enumerate(files)]
        if config.targets_per_user is not None or config.labels_per_window is not None or rule.since is not None:
            self.parts = self._with_counted_samples()
        self.size = require_samples(sum(part.samples for part in self.parts), config)
        self.rank_samples = [stop - start for start, stop in (sample_range(self.size, r, ranks) for r in range(ranks))]
        self.batch = rank_batch(config.samples_per_step, ranks)

    @property
    def steps_per_epoch(self) -> int:
        return epoch_steps(self.size, self.config.samples_per_step, self.ranks)

    def steps(self, first: int) -> Generator[Step]:
        start, done = divmod(first, self.steps_per_epoch)
        with closing(prefetched(self._filled_windows(start, self._skip(done)))) as filled:
            for epoch, windows in groupby(filled, key=lambda pair: pair[0]):
                yield from self._epoch_steps((chunk for _, chunk in windows), done if epoch == start else 0)

    def _skip(self, done: int) -> int:
        """Count how many of its samples this rank has used after `done` steps of an epoch.

        One always remains, for the steps in which only other ranks have any left.
        """
        return max(0, min(done * self.batch, self.rank_samples[self.rank] - 1))

    def _epoch_steps(self, windows: Iterator[Chunk], done: int) -> Iterator[Step]:
        steps = range(done, self.steps_per_epoch)
        batches = cut(windows, (max(1, self._counts(step)[self.rank]) for step in steps))
        chunk = None
        for step in steps:
            counts = self._counts(step)
            own, size = counts[self.rank], sum(counts)
            if own or chunk is None:
                chunk = next(batches)
            given = chunk if own else chunk.part(len(chunk) - 1)
            yield Step(given.sequences, given.samples, own * self.ranks / size, size)

    def _counts(self, step: int) -> list[int]:
        """Samples of each rank in a step of an epoch."""
        return [min(max(samples - step * self.batch, 0), self.batch) for samples in self.rank_samples]

    def _windows(self, epoch: int) -> list[Window]:
        order = torch.randperm(len(self.parts), generator=seeded("cpu", self.config.seed, "parts", epoch)).tolist()
        parts = [self.parts[number] for number in order if self.parts[number].samples]
        # with fewer samples than ranks, a rank without any borrows one, see _epoch_steps
        pieces = rank_pieces(parts, self.rank, self.ranks) or [Piece(parts[0], 0, 1)]
        groups = group_pieces(pieces, self.config.shuffle_events)
        return [Window(epoch, number, tuple(group)) for number, group in enumerate(groups)]

    def _filled_windows(self, start: int, skip: int) -> Iterator[tuple[int, Chunk]]:
        """(epoch, shuffled samples) of each window from epoch `start` on, without that epoch's first `skip` samples."""
        for epoch in range(start, self.config.epochs):
            windows = self._windows(epoch)
            while skip >= len(windows[0]):
                skip -= len(windows.pop(0))
            for window in windows:
                yield epoch, self._filled(window).part(skip)
                skip = 0

    def _filled(self, window: Window) -> Chunk:
        tables = zip(window.pieces, self.read([piece.part for piece in window.pieces]), strict=True)
        chunk = join([self._filled_piece(window.epoch, piece, table) for piece, table in tables])
        generator = seeded("cpu", self.config.seed, "window", window.epoch, self.rank, window.number)
        shuffled = chunk.samples[torch.randperm(len(chunk), generator=generator)]
        return to_device(Chunk(chunk.sequences, shuffled), self.device)

    def _filled_piece(self, epoch: int, piece: Piece, table: pa.Table) -> Chunk:
        sequences = train_sequences(table, self.profile, self.rule)
        # the key names the part: two ranks that share it draw the same
        key = self.config.seed, "targets", epoch, piece.part.number
        samples = samples_of(self.config, sequences, self.max_history, *key)
        return Chunk(sequences, samples[torch.arange(piece.first, piece.stop)])

    def _with_counted_samples(self) -> list[PartFile]:
        """Count the samples that no footer tells: one pass over the log, each rank over its parts."""
        counts = torch.zeros(len(self.parts), dtype=torch.int64)
        for part, sequences in self._own_sequences():
            counts[part.number] = len(samples_of(self.config, sequences, self.max_history))
        total = sum_over_ranks(counts.to(self.device)).tolist()
        return [replace(part, samples=total[part.number]) for part in self.parts]

    def histories(self) -> Iterable[Sequences]:
        return (sequences for _, sequences in self._own_sequences())

    def label_counts(self, items: int) -> Tensor:
        drawn = self.config.targets_per_user is not None
        counts = torch.zeros(items, dtype=torch.float64)
        for _, sequences in self._own_sequences():
            counts += count_labels(sequences, drawn, items)
        return sum_over_ranks(counts.to(self.device))

    def _own_sequences(self) -> Iterator[tuple[PartFile, Sequences]]:
        own = [part for part in self.parts[self.rank :: self.ranks] if part.users]
        for part, table in zip(own, self.read(own), strict=True):
            yield part, train_sequences(table, [], self.rule)


def part_of(number: int, file: str) -> PartFile:
    """Read a part's size from the footer of its file."""
    users, events = part_size(file)
    return PartFile(number, file, users, events, events - users)


def sample_range(samples: int, rank: int, ranks: int) -> tuple[int, int]:
    """Return the first and the last + 1 of a rank's samples: as many as any other's, or one more."""
    return samples * rank // ranks, samples * (rank + 1) // ranks


def rank_pieces(parts: Sequence[PartFile], rank: int, ranks: int) -> list[Piece]:
    """Cut a rank's share out of the parts laid end to end; two ranks may share a part, and even a user."""
    start, stop = sample_range(sum(part.samples for part in parts), rank, ranks)
    pieces, before = [], 0
    for part in parts:
        first, last = max(0, start - before), min(part.samples, stop - before)
        if first < last:
            pieces.append(Piece(part, first, last))
        before += part.samples
    return pieces


def group_pieces(pieces: Iterable[Piece], events: int) -> list[list[Piece]]:
    """Group consecutive pieces whose parts have at most `events` events together, or one piece that alone has more."""
    groups: list[list[Piece]] = []
    held = 0
    for piece in pieces:
        if not groups or held + piece.part.events > events:
            groups.append([])
            held = 0
        groups[-1].append(piece)
        held += piece.part.events
    return groups


def cut(windows: Iterable[Chunk], sizes: Iterable[int]) -> Iterator[Chunk]:
    """Cut the windows' samples, in order, so many at a time; what a window leaves over begins the next batch."""
    windows = iter(windows)
    rest: Chunk | None = None
    for size in sizes:
        batch: list[Chunk] = []
        while (missing := size - sum(map(len, batch))) > 0:
            if rest is None or not len(rest):
                rest = next(windows)
            batch.append(rest.part(0, missing))
            rest = rest.part(missing)
        yield join(batch)


def join(chunks: Sequence[Chunk]) -> Chunk:
    """Join the samples of all chunks in order, over their sequences end to end."""
    if len(chunks) == 1:
        return chunks[0]
    sequences = [chunk.sequences for chunk in chunks]
    offsets = _join_offsets([each.offsets for each in sequences])
    profiles = [each.profile for each in sequences if each.profile is not None]
    moments = [each.moments for each in sequences if each.moments is not None]
    past = [each.past for each in sequences if each.past is not None]
    users, positions, first_user, first_event = [], [], 0, 0
    for chunk in chunks:
        users.append(chunk.samples.users + first_user)
        positions.append(chunk.samples.positions + first_event)
        first_user += len(chunk.sequences)
        first_event += len(chunk.sequences.items)
    return Chunk(
        Sequences(
            torch.cat([each.items for each in sequences]),
            offsets,
            _join_bags(profiles) if profiles else None,
            torch.cat(moments) if moments else None,
            torch.cat(past) if past else None,
        ),
        Samples(torch.cat(users), torch.cat(positions)),
    )


def _join_bags(bags: Sequence[Bags]) -> Bags:
    rows, weights = torch.cat([each.rows for each in bags]), torch.cat([each.weights for each in bags])
    return Bags(_join_offsets([each.offsets for each in bags]), rows, weights)


def _join_offsets(offsets: Sequence[Tensor]) -> Tensor:
    sizes = torch.cat([each.diff() for each in offsets])
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def to_device(chunk: Chunk, device: torch.device) -> Chunk:
    """Return the same on a device."""
    samples = chunk.samples
    return Chunk(chunk.sequences.to(device), Samples(samples.users.to(device), samples.positions.to(device)))


def prefetched(values: Iterator[T]) -> Generator[T]:
    """Yield the same values, none of them None; a thread makes the next one while the caller works with this one."""
    with ThreadPoolExecutor(1, "train-input") as thread:
        coming = thread.submit(next, values, None)
        while (value := coming.result()) is not None:
            coming = thread.submit(next, values, None)
            yield value


class RayReader:
    """Reads parts by Ray Data, in tasks on any node.

    One execution per call, and a call per window: an execution that is left waiting for its consumer takes a CPU.
    """

    def __init__(self, columns: Sequence[str]):
        self.columns = list(columns)

    def __call__(self, parts: Sequence[PartFile]) -> Iterator[pa.Table]:
        if not parts:
            return
        columns = self.columns

        def read(file: pa.Table) -> pa.Table:
            return read_part(file["path"][0].as_py(), columns)

        files = [pa.table({"path": [part.path]}) for part in parts]
        dataset = ray.data.from_arrow(files).map_batches(read, batch_size=1, batch_format="pyarrow")
        dataset.context.execution_options.preserve_order = True
        blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        yield from recut(blocks, [part.users for part in parts])


def recut(tables: Iterable[pa.Table], rows: Sequence[int]) -> Iterator[pa.Table]:
    """Yield the same rows as tables of so many `rows`, none 0: Ray Data may join and split blocks."""
    tables = iter(tables)
    rest = next(tables, None)
    for wanted in rows:
        assert rest is not None
        while rest.num_rows < wanted:
            rest = pa.concat_tables([rest, next(tables)])
        yield rest.slice(0, wanted)
        rest = rest.slice(wanted) if rest.num_rows > wanted else next(tables, None)

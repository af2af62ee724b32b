"""Which events of a sequence are labels, and where the history before a label ends: as times say, where they count.

A test history of the temporal protocol ends before a moment (a basket, a sitting) and what is asked for comes in later
ones. A training whose histories end amid a basket learns something else: that what was just bought is not bought again.
And what people buy changes with the season: labels of last year teach last year's popularity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mind_core.features import FeatureSpec
from mind_core.sequences import Sequences
from pipelines.config.schema import Config, TrainConfig
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.part_files import read_part
from pipelines.dataset.tensors import to_sequences

Times = npt.NDArray[np.int64]
SAMPLED_EVENTS = 2_000_000  # that tell how old the newest share of all events is
HELD_OUT = np.iinfo(np.int64).max  # the time of an event that is held out: newer than all that are not


@dataclass(frozen=True)
class LabelRule:
    """What times say of labels.

    by_moment : a history ends before all events of its label's time.
    since : the oldest time that a label may have; None: any.
    """

    by_moment: bool = False
    since: int | None = None

    @property
    def columns(self) -> list[str]:
        """The columns of a sequence that the rule reads beside those that a model learns from."""
        return ["times"] if self.by_moment or self.since is not None else []


EVERY_EVENT = LabelRule()


def label_rule(config: TrainConfig, dataset: Dataset) -> LabelRule:
    """Tell the rule of a training on a dataset: the same for every worker, whoever reads what."""
    by_moment = config.cuts_by_moment(dataset.manifest.config["split"]["protocol"])
    return LabelRule(by_moment, None if config.label_share == 1 else _newest_since(dataset, config.label_share))


def with_fitting_windows(config: Config, dataset: Dataset) -> Config:
    """Return the configuration with `train.labels_per_window` as it is meant for a dataset.

    Users of few events have few labels: a step is cut for the power of two that holds the average user's, so that
    most places of its windows hold one, and `train.batch_size` is about the labels of a step here too.
    """
    most, counts = config.train.labels_per_window, dataset.manifest.splits["train"]
    if most is None:
        return config
    fitting = min(most, window_labels((counts.events - counts.users) / counts.users))
    return config.model_copy(update={"train": config.train.model_copy(update={"labels_per_window": fitting})})


def window_labels(average: float) -> int:
    """Return the smallest power of two that is not below the average number of a user's labels.

    >>> [window_labels(average) for average in (0.0, 1.0, 5.4, 8.0, 161.0)]
    [1, 1, 8, 8, 256]
    """
    return 1 << max(0, math.ceil(average) - 1).bit_length()


def train_sequences(table: pa.Table, profile: list[FeatureSpec], rule: LabelRule) -> Sequences:
    """Read the histories and profiles of the train split, row u of the table being user u, with what the rule says.

    Examples
    --------
    Two baskets of a user, of two items and of one; labels are what is not older than time 20:

    >>> table = pa.table({"items": [[2, 3, 4]], "times": [[10, 10, 20]]})
    >>> found = train_sequences(table, [], LabelRule(by_moment=True, since=20))
    >>> found.moments.tolist(), found.past.tolist()
    ([0, 1, 0], [2])
    """
    sequences = to_sequences(table, profile)
    if not rule.columns:
        return sequences
    lists = table["times"]
    times = np.asarray(pc.list_flatten(lists), np.int64)
    if len(times) != len(sequences.items):
        raise ValueError(f"{len(times)} times of {len(sequences.items)} items")
    offsets = sequences.offsets.numpy()
    moments = torch.from_numpy(_back_to_moment(times, offsets)) if rule.by_moment else None
    past = None if rule.since is None else torch.from_numpy(_older(times, offsets, rule.since))
    return replace(sequences, moments=moments, past=past)


def _back_to_moment(times: Times, offsets: Times) -> npt.NDArray[np.int32]:
    kind = np.int32 if len(times) < 2**31 else np.int64
    starts = np.zeros(len(times), kind)  # of the moment of each event; in place, as a log is large
    place = np.arange(len(times), dtype=kind)
    begins = np.ones(len(times), bool)
    np.not_equal(times[1:], times[:-1], out=begins[1:])
    begins[offsets[:-1][offsets[:-1] < len(times)]] = True
    np.copyto(starts, place, where=begins)
    np.maximum.accumulate(starts, out=starts)
    back: npt.NDArray[np.int32] = np.subtract(place, starts, out=place).astype(np.int32, copy=False)
    return back


def _older(times: Times, offsets: Times, since: int) -> Times:
    counts = np.zeros(len(offsets) - 1, np.int64)
    some = np.diff(offsets) > 0
    if some.any():
        counts[some] = np.add.reduceat(times < since, offsets[:-1][some], dtype=np.int64)
    return counts


def _newest_since(dataset: Dataset, share: float) -> int | None:
    """Say how old the newest `share` of the train events are, by some of the parts: those that were appended, whose
    users are those who have come back, as likely as others."""
    seen: list[Times] = []
    files = dataset.split_files("train")
    for number in np.random.default_rng(0).permutation(len(files)):  # alike on every worker
        table = read_part(files[number], ["times"])
        seen.append(np.asarray(pc.list_flatten(table["times"]), np.int64))
        if sum(map(len, seen)) >= SAMPLED_EVENTS:
            break
    times = np.concatenate(seen) if seen else np.zeros(0, np.int64)
    if not len(times):
        return None
    place = min(int((1 - share) * len(times)), len(times) - 1)
    return int(np.partition(times, place)[place])

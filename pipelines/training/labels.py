"""Which events of a sequence are labels, and where the history before a label ends: as times say, where they count.

A test history of the temporal protocol ends before a moment (a basket, a sitting) and what is asked for comes in later
ones. A training whose histories end amid a basket learns something else: that what was just bought is not bought again.
And what people buy changes with the season: labels of last year teach last year's popularity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mind_core.features import FeatureSpec
from mind_core.sequences import Sequences
from pipelines.config.schema import TrainConfig
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import to_sequences, to_tensor

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
    times = to_tensor(pc.list_flatten(lists), np.int64)
    if len(times) != len(sequences.items):
        raise ValueError(f"{len(times)} times of {len(sequences.items)} items")
    moments = _back_to_moment(times, sequences.offsets) if rule.by_moment else None
    past = None if rule.since is None else _older(times, sequences.offsets, rule.since)
    return replace(sequences, moments=moments, past=past)


def _back_to_moment(times: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    place, begins = torch.arange(len(times)), torch.ones(len(times), dtype=torch.bool)
    begins[1:] = times[1:] != times[:-1]
    starts = offsets[:-1]
    begins[starts[starts < len(times)]] = True
    return (place - torch.where(begins, place, 0).cummax(0).values).int() if len(times) else place.int()


def _older(times: torch.Tensor, offsets: torch.Tensor, since: int) -> torch.Tensor:
    counted = torch.nn.functional.pad((times < since).long().cumsum(0), (1, 0))
    return counted[offsets].diff()


def _newest_since(dataset: Dataset, share: float) -> int | None:
    """Say how old the newest `share` of the train events are, by the first parts: a hash has dealt users to them."""
    seen: list[npt.NDArray[np.int64]] = []
    for table in dataset.tables("train", ["times"]):
        seen.append(np.asarray(pc.list_flatten(table["times"]), np.int64))
        if sum(map(len, seen)) >= SAMPLED_EVENTS:
            break
    times = np.concatenate(seen) if seen else np.zeros(0, np.int64)
    if not len(times):
        return None
    place = min(int((1 - share) * len(times)), len(times) - 1)
    return int(np.partition(times, place)[place])

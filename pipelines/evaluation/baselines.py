"""What a model is always shown beside: four rules (mind_core.baselines), fitted to what it was trained on.

They are fitted once, on the driver, to the train split; and to the validation split too beside a model that was.

Bounded, whatever the log: at most EVENTS of its train events are read, the first files', which hold a fair sample of
the users, as users lie in the order of a hash. Item-kNN is left out above that.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mind_core.baselines import ItemKNN, PersonalFrequency, RecentPopularity, recent_counts
from mind_core.evaluation import evaluate
from mind_core.inference import PopularityRetriever, Scorer
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SplitName
from pipelines.dataset.tensors import to_sequences, to_targets, to_tensor
from pipelines.evaluation.neighbours import nearest
from pipelines.training.data import event_counts, train_table

EVENTS = 20_000_000  # of the train split: 1.5 GB on the driver while the rules are fitted
RECENT = 0.1  # share of the train events that `recent popularity` counts
DECAYS = (0.8, 0.95)  # of item-kNN: lately, or much of the history; without any, what is equally frequent would tie
CHOOSING_USERS = 1000  # of the validation split, who decide between them
LABELS = {
    "popularity": "popularity",
    "recent_popularity": "recent popularity",
    "personal_frequency": "personal frequency",
    "item_knn": "item-kNN",
}
"""Names of all baselines, as in MLflow, and what tables call them; in the order of a report."""

Ints = npt.NDArray[np.int64]
Events = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # user (from 0), item and time (E,)


@dataclass(frozen=True)
class Neighbours:
    """What item-kNN knows: `items` (V, N) int32, `similarity` (V, N) float32, and how it weighs a history."""

    items: npt.NDArray[np.int32]
    similarity: npt.NDArray[np.float32]
    decay: float


@dataclass(frozen=True)
class FittedBaselines:
    """Arrays and text only, so that actors share one copy in Ray's object store.

    counts, recent : (V,) events per item that they are fitted to: all, and the newest.
    notes : name -> how it was fitted, in a few words.  left_out : lines that say which baseline is missing, and why.
    """

    counts: Ints
    recent: Ints
    neighbours: Neighbours | None = None
    notes: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def scorers(self, exclude_seen: bool) -> dict[str, Scorer]:
        """Make the rules by name. Without the user's own items, personal frequency is popularity: left out."""
        counts = torch.tensor(self.counts)
        rules: dict[str, Scorer] = {
            "popularity": PopularityRetriever(counts, max_history=1),
            "recent_popularity": RecentPopularity(torch.tensor(self.recent), counts),
        }
        if not exclude_seen:
            rules["personal_frequency"] = PersonalFrequency(counts)
        if self.neighbours is not None:
            near = self.neighbours
            with warnings.catch_warnings():  # Ray's arrays are read-only, of which torch warns; nothing writes to them
                warnings.simplefilter("ignore", UserWarning)
                arrays = torch.from_numpy(near.items), torch.from_numpy(near.similarity)
            rules["item_knn"] = ItemKNN(*arrays, counts, near.decay)
        return rules


def fit_baselines(
    dataset: Dataset, config: Config, *, item_knn: bool = True, on_validation: bool = False
) -> FittedBaselines:
    """Fit all rules to the train split, or to that and the validation split; `item_knn` is what takes a while.

    Notes
    -----
    What is recent: the newest tenth of the events, by time; those of the validation split come after all others. Where
    the log's times are a mere order of each user's own events (`time_unit` was not given), the newest tenth of each
    user's.

    Item-kNN takes the decay, of DECAYS, that does better in the headline metric on users of the validation split when
    it is fitted to the train split.
    """
    splits = dataset.manifest.splits
    total = splits["train"].events + (splits["validation"].targets if on_validation else 0)
    counts = event_counts(dataset, dataset.items(), on_validation)
    users, items, times = events = _events(dataset, on_validation and total <= EVENTS)
    comparable = dataset.manifest.time_unit == "us"
    recent = recent_counts(users, items, times if comparable else None, len(counts), RECENT)
    share = f"{100 * RECENT:.0f} %"
    known = "train and validation events" if on_validation else "train events"
    notes = {"recent_popularity": f"newest {share} of the {known}" if comparable else f"newest {share} of each user's"}
    left_out, neighbours = [], None
    if total > EVENTS:
        notes["recent_popularity"] += f", of users with {len(items):,} events"
        left_out.append(f"{LABELS['item_knn']} is left out: {total:,} {known}, more than {EVENTS:,}")
    elif item_knn:
        neighbours = _neighbours(dataset, config, events, counts, on_validation)
        many = neighbours.items.shape[1]
        notes["item_knn"] = f"{many} neighbours, decay {neighbours.decay:g} (chosen on validation users)"
    return FittedBaselines(counts.numpy(), recent.numpy(), neighbours, notes, left_out)


def _neighbours(
    dataset: Dataset, config: Config, events: Events, counts: torch.Tensor, on_validation: bool
) -> Neighbours:
    """Fit item-kNN to `events`; the decay is chosen without those that it is chosen by."""
    users, items, _ = _events(dataset, on_validation=False) if on_validation else events
    found = nearest(users.numpy(), items.numpy(), len(counts))
    decay = _best_decay(dataset, config, Neighbours(*found, DECAYS[0]), counts)
    if on_validation:
        found = nearest(events[0].numpy(), events[1].numpy(), len(counts))
    return Neighbours(*found, decay)


def _best_decay(dataset: Dataset, config: Config, near: Neighbours, counts: torch.Tensor) -> float:
    table = pa.concat_tables(_first_rows(dataset, "validation", ["items", "targets"], CHOOSING_USERS)).combine_chunks()
    sequences, targets = to_sequences(table, []), to_targets(table)
    arrays = torch.from_numpy(near.items), torch.from_numpy(near.similarity)
    everyone, cutoffs, filtered = torch.arange(len(sequences)), config.metric_cutoffs, config.evaluate.seen == "filter"

    def value(decay: float) -> float:
        rule = ItemKNN(*arrays, counts, decay)
        outcome = evaluate(rule, sequences, targets, everyone, cutoffs, exclude_seen=filtered)
        return float(outcome.metrics[config.train.metric].mean()) if len(outcome.users) else 0.0

    return max(DECAYS, key=value)


def _first_rows(dataset: Dataset, split: SplitName, columns: list[str], most: int) -> Iterator[pa.Table]:
    """Read the first `most` rows of a split, file by file."""
    for table in dataset.tables(split, columns):
        yield table.slice(0, most)
        most -= len(table)
        if most <= 0:
            return


def _events(dataset: Dataset, on_validation: bool) -> Events:
    """Read user (from 0), item and time (E,) of the events, those of the train split file by file until EVENTS."""
    if on_validation:
        table = train_table(dataset, ["items", "times"], include_validation=True).combine_chunks()
    else:
        tables, events = [], 0
        for each in dataset.tables("train", ["items", "times"]):
            tables.append(each)
            events += pc.sum(pc.list_value_length(each["items"])).as_py() or 0
            if events >= EVENTS:
                break
        table = pa.concat_tables(tables).combine_chunks()
    sequences = to_sequences(table, [])
    times = to_tensor(pc.list_flatten(table["times"]), np.int64)
    users = torch.repeat_interleave(torch.arange(len(sequences), dtype=torch.int32), sequences.lengths)
    return users, sequences.items, times

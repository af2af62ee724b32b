"""What the several interests of a model are worth, on a sample of the users: do they differ, find, and stay?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from mind_core.diagnostics import coupling_entropy, moved_by_one_event, pairwise_cosine
from mind_core.evaluation import Outcome
from mind_core.inference import TILE_USERS, MINDRetriever
from mind_core.interest_metrics import best_interest_recall, list_overlap
from mind_core.metrics import user_metrics
from mind_core.search import search
from mind_core.sequences import Sequences as BehaviourSequences
from mind_core.sequences import full_histories
from mind_core.shelves import history_pairs
from mind_core.special_rows import FIRST_ITEM

SAMPLED_USERS = 8192  # about so many are looked at: each of their interests makes a list of its own
BINS = 40
RANGES = {"cosine": (-1.0, 1.0), "entropy": (0.0, 1.0), "overlap": (0.0, 1.0)}
"""Of what is counted by user, the least and the greatest value."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class InterestSample:
    """Of S users with several interests; see the functions in mind_core that the names come from.

    recall, best_interest_recall : of all interests together, and of the one that finds most, in lists of `depth`.
    entropy : of the couplings of a user's behaviours, 0 to 1; NaN without behaviours.
    moved : by one more event; NaN where nothing could move.  longer : bool, the history is longer than the window.
    """

    depth: int
    cosine: Floats
    entropy: Floats
    overlap: Floats
    recall: Floats
    best_interest_recall: Floats
    moved: Floats
    longer: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class InterestReport:
    """Means over `users` sampled users with several interests; None where no user was of the kind.

    moved_shorter, moved_longer : share of the behaviours that go to another interest after one more event, of users
        whose history fits the window, and of users whose window slides.
    histograms : name -> users in BINS bins of equal width over RANGES[name].
    """

    users: int
    depth: int
    cosine: float
    entropy: float | None
    overlap: float
    recall: float
    best_interest_recall: float
    moved_shorter: float | None
    moved_longer: float | None
    histograms: dict[str, list[int]] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """The figures as metrics: interests/<name>."""
        figures = {name: value for name, value in asdict(self).items() if name not in ("users", "depth", "histograms")}
        return {f"interests/{name}": value for name, value in figures.items() if value is not None}


def interest_sample(
    retriever: MINDRetriever,
    sequences: BehaviourSequences,
    outcome: Outcome,
    chosen: torch.Tensor,
    *,
    exclude_seen: bool,
) -> list[InterestSample]:
    """Look at the users of an outcome that are `chosen` (U,) bool, all with several interests, a tile at a time."""
    tiles = chosen.nonzero().squeeze(1).split(TILE_USERS)
    return [_of_tile(retriever, sequences, outcome, tile, exclude_seen) for tile in tiles if len(tile)]


def _of_tile(
    retriever: MINDRetriever, sequences: BehaviourSequences, outcome: Outcome, tile: torch.Tensor, exclude_seen: bool
) -> InterestSample:
    """Look at some of the users of an outcome, at most TILE_USERS."""
    users = outcome.users[tile]
    histories = full_histories(sequences, users, retriever.view)
    vectors, own, weights = retriever.route(histories)
    mask = functional.pad(histories.mask, (0, weights.shape[2] - histories.mask.shape[1]))
    count = own.shape[1]
    seen = None
    if exclude_seen:
        row, item = history_pairs(sequences, users)
        number = torch.arange(count)
        seen = ((row.unsqueeze(1) * count + number).flatten(), item.repeat_interleave(count))
    depth = min(max(outcome.cutoffs), len(retriever.catalogue) - FIRST_ITEM)
    alone = vectors.flatten(0, 1).unsqueeze(1)  # each interest as if it were a user
    found = search(retriever.catalogue, alone, own.flatten().unsqueeze(1), depth, seen)
    lists = found.items.view(len(users), count, depth)
    place = torch.full((len(outcome.users),), -1)
    place[tile] = torch.arange(len(tile))
    kept = place[outcome.row] >= 0
    row, targets, ranks = place[outcome.row][kept], outcome.targets[kept], outcome.ranks[kept]
    return InterestSample(
        depth=depth,
        cosine=pairwise_cosine(vectors, own).numpy(),
        entropy=coupling_entropy(weights, mask, own).numpy(),
        overlap=list_overlap(lists, own).numpy(),
        recall=user_metrics(ranks, row, len(users), [depth])[f"recall@{depth}"].float().numpy(),
        best_interest_recall=best_interest_recall(lists, own, row, targets).numpy(),
        moved=moved_by_one_event(retriever, sequences, users).numpy(),
        longer=(sequences.lengths[users] > retriever.view.max_history).numpy(),
    )


def interest_report(found: Sequence[InterestSample]) -> InterestReport | None:
    """Average what was seen of all slices; None without any."""
    if not found:
        return None

    def all_of(name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([getattr(each, name) for each in found]).astype(np.float64)

    def mean(values: npt.NDArray[np.float64]) -> float | None:
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else None

    longer, moved = all_of("longer") > 0, all_of("moved")
    return InterestReport(
        users=len(longer),
        depth=found[0].depth,
        cosine=float(all_of("cosine").mean()),
        entropy=mean(all_of("entropy")),
        overlap=float(all_of("overlap").mean()),
        recall=float(all_of("recall").mean()),
        best_interest_recall=float(all_of("best_interest_recall").mean()),
        moved_shorter=mean(moved[~longer]),
        moved_longer=mean(moved[longer]),
        histograms={name: _histogram(all_of(name), limits) for name, limits in RANGES.items()},
    )


def _histogram(values: npt.NDArray[np.float64], limits: tuple[float, float]) -> list[int]:
    inside = np.clip(values[~np.isnan(values)], *limits)  # rounding may lead outside
    counts: list[int] = np.histogram(inside, BINS, limits)[0].tolist()
    return counts

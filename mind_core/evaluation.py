"""Full-ranking evaluation of users who have held-out targets: the same code in training, `mind evaluate` and tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mind_core.inference import Retriever, recommend
from mind_core.metrics import target_ranks, user_metrics
from mind_core.sequences import Sequences


@dataclass(frozen=True)
class Targets:
    """Held-out items: user u's are items[offsets[u]:offsets[u + 1]], distinct within the user."""

    items: Tensor
    offsets: Tensor

    def of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """(row, item) of the targets of `users`; row counts from 0 in the order of `users`."""
        sizes = self.offsets.diff()[users]
        row = torch.repeat_interleave(torch.arange(len(users), device=users.device), sizes)
        within = torch.arange(len(row), device=users.device) - (sizes.cumsum(0) - sizes)[row]
        return row, self.items[self.offsets[users][row] + within].long()


@dataclass(frozen=True)
class Outcome:
    """What full ranking found for U users that have targets left to find.

    users : (U,) rows of the evaluated sequences.
    metrics : name -> (U,) float64.
    row, targets, ranks : (T,) each target's place in `users`, its item and its rank.
    top_items : (U, n) the recommended items, 0 where the catalogue ran out.
    seen_targets : number of targets left out because they lie in the user's history and seen items are filtered.
    """

    users: Tensor
    metrics: dict[str, Tensor]
    row: Tensor
    targets: Tensor
    ranks: Tensor
    top_items: Tensor
    seen_targets: int


def evaluate(
    retriever: Retriever,
    sequences: Sequences,
    targets: Targets,
    users: Tensor,
    cutoffs: list[int],
    *,
    exclude_seen: bool,
) -> Outcome:
    """Rank the whole catalogue for `users` (B,) and compare with their targets.

    With `exclude_seen`, items of the history are neither recommended nor asked for: a target that lies in the history
    is left out, and a user without any other target is not counted.
    """
    row, items = targets.of(users)
    keep = ~_in_history(sequences, users, row, items, len(retriever.item_vectors)) if exclude_seen else row >= 0
    seen_targets = int((~keep).sum())
    row, items = row[keep], items[keep]
    counted, row = row.unique(return_inverse=True)
    users = users[counted]
    depth = max(cutoffs)
    top_items, top_scores, _ = recommend(retriever, sequences, users, depth + 1, exclude_seen=exclude_seen)
    ranks = target_ranks(top_items, top_scores, row, items)
    metrics = user_metrics(ranks, row, len(users), cutoffs)
    return Outcome(users, metrics, row, items, ranks, top_items[:, :depth], seen_targets)


def _in_history(sequences: Sequences, users: Tensor, row: Tensor, items: Tensor, catalogue: int) -> Tensor:
    """(T,) bool: target t lies in its user's history."""
    history_row, history = Targets(sequences.items, sequences.offsets).of(users)
    return torch.isin(row * catalogue + items, history_row * catalogue + history)

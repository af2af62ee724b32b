"""Full-ranking evaluation of users who have held-out targets: the same code in training, `mind evaluate` and tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mind_core.hits import Pairs, TopList
from mind_core.inference import Scorer, recommend_shelves
from mind_core.metrics import group_metrics, target_ranks, user_metrics
from mind_core.sequences import Sequences
from mind_core.shelves import Shelf, history_pairs


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
    row, targets, ranks : (T,) each target's place in `users`, its item and its rank.
    again : (T,) bool, the target lies in its user's history.
    shelf_ranks : (T,) rank among the items of the history if `again`, else among all others; None if not asked for.
    top_items, interest : (U, n) the recommended items, 0 where the catalogue ran out, and which interest found each.
    seen_targets : number of targets left out because they lie in the user's history and seen items are filtered.
    """

    users: Tensor
    row: Tensor
    targets: Tensor
    again: Tensor
    ranks: Tensor
    shelf_ranks: Tensor | None
    top_items: Tensor
    interest: Tensor
    seen_targets: int
    cutoffs: list[int]

    @cached_property
    def metrics(self) -> dict[str, Tensor]:
        """Name -> (U,) float64: `group_metrics` where shelves were asked for, else `user_metrics`."""
        users = len(self.users)
        if self.shelf_ranks is None:
            return user_metrics(self.ranks, self.row, users, self.cutoffs)
        return group_metrics(self.ranks, self.shelf_ranks, self.again, self.row, users, self.cutoffs)


def evaluate(
    scorer: Scorer,
    sequences: Sequences,
    targets: Targets,
    users: Tensor,
    cutoffs: list[int],
    *,
    exclude_seen: bool,
    shelves: bool = False,
) -> Outcome:
    """Rank the whole catalogue for `users` (B,) and compare with their targets.

    With `exclude_seen`, items of the history are neither recommended nor asked for: a target that lies in the history
    is left out, and a user without any other target is not counted.

    Parameters
    ----------
    shelves : rank each target on its own shelf too: among the items of the history if it is one of them, else among
        all others. With `exclude_seen` there is one shelf only, and this must be False.
    """
    if exclude_seen and shelves:
        raise ValueError("shelves=True: must be False with exclude_seen=True, which leaves the new items alone")
    row, items = targets.of(users)
    again = _in_history(sequences, users, row, items)
    keep = ~again if exclude_seen else torch.ones_like(again)
    seen_targets = int((~keep).sum())
    row, items, again = row[keep], items[keep], again[keep]
    counted, row = row.unique(return_inverse=True)
    users = users[counted]
    depth = max(cutoffs)
    wanted: list[Shelf] = ["new" if exclude_seen else "all", *(("again", "new") if shelves else ())]
    lists = recommend_shelves(scorer, sequences, users, dict.fromkeys(wanted, depth + 1))
    whole = lists[wanted[0]]
    shelf_ranks = None
    if shelves:
        on_again, on_new = (_ranks(lists[shelf], row, items) for shelf in wanted[1:])
        shelf_ranks = torch.where(again, on_again, on_new)
    return Outcome(
        users=users,
        row=row,
        targets=items,
        again=again,
        ranks=_ranks(whole, row, items),
        shelf_ranks=shelf_ranks,
        top_items=whole.items[:, :depth],
        interest=whole.interest[:, :depth],
        seen_targets=seen_targets,
        cutoffs=cutoffs,
    )


def _ranks(found: TopList, row: Tensor, items: Tensor) -> Tensor:
    return target_ranks(found.items, found.scores, row, items)


def _in_history(sequences: Sequences, users: Tensor, row: Tensor, items: Tensor) -> Tensor:
    """(T,) bool: target t lies in its user's history."""
    return pairs_in((row, items), history_pairs(sequences, users))


def pairs_in(pairs: Pairs, others: Pairs) -> Tensor:
    """Tell which of the (row, item) `pairs`, of one shape, are among `others`: bool of that shape.

    Examples
    --------
    >>> pairs_in((torch.tensor([0, 0, 1]), torch.tensor([5, 7, 5])), (torch.tensor([0]), torch.tensor([5]))).tolist()
    [True, False, False]
    """
    (row, item), (other_row, other) = pairs, others
    catalogue = 1 + int(max(each.max() if each.numel() else 0 for each in (item, other)))
    return torch.isin(row * catalogue + item, other_row * catalogue + other)

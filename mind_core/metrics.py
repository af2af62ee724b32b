"""Ranking metrics over the full catalogue. Ties count against the model: a target ranks behind every item of its score.

Targets of a batch are flat: target t belongs to user row[t]. Metrics are per user, so that they can be averaged over
any group of users, on any number of workers.

A target lies in one of two groups: `again`, an item of the user's history, and `new`. Their metrics look at the same
list of all items; those of a shelf (`shelf_again`, `shelf_new`) at a list of the group's candidates alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def target_ranks(top_items: Tensor, top_scores: Tensor, row: Tensor, targets: Tensor) -> Tensor:
    """Find the rank of each target from a top list that is one place deeper than the largest cutoff.

    Parameters
    ----------
    top_items, top_scores : (B, n + 1), by falling score.
    row : (T,) the user of each target.
    targets : (T,) item indices, distinct within a user.

    Returns
    -------
    (T,) int64: 1 + number of other items scoring at least as high; n + 1 or more means "not in the top n". Exact up
    to n, because a target tied with place n + 1 has n + 1 items at or above its score.

    Examples
    --------
    Item 8 is tied with 9, so it ranks behind it; item 5 is not in the list:

    >>> items, scores = torch.tensor([[7, 8, 9]]), torch.tensor([[0.9, 0.5, 0.5]])
    >>> target_ranks(items, scores, torch.tensor([0, 0, 0]), torch.tensor([7, 8, 5])).tolist()
    [1, 3, 4]
    """
    found = (top_items[row] == targets.unsqueeze(1)) & ~top_scores[row].isnan()  # (T, n + 1); a NaN finds nothing
    score = top_scores[row].masked_fill(~found, float("-inf")).amax(1, keepdim=True)
    at_or_above = (top_scores[row] >= score).sum(1)
    return torch.where(found.any(1), at_or_above, top_items.shape[1] + 1)


def user_metrics(ranks: Tensor, row: Tensor, users: int, cutoffs: list[int]) -> dict[str, Tensor]:
    """Compute HitRate@N, Recall@N, NDCG@N and MRR@N of each user, of m targets at ranks r_1 < r_2 < ...

    hit_rate    1 if r_1 <= N else 0
    recall      |{t : r_t <= N}| / m
    ndcg        sum_{t : r_t <= N} 1 / log2(1 + r_t)  /  sum_{i = 1 .. min(N, m)} 1 / log2(1 + i)   (the standard IDCG)
    mrr         1 / r_1 if r_1 <= N else 0

    Parameters
    ----------
    ranks, row : (T,) rank and user of each target; every user has at least one.
    users : B.

    Returns
    -------
    name -> (B,) float64.

    Examples
    --------
    Targets at ranks 2 and 3 of one user, at 30 of another:

    >>> metrics = user_metrics(torch.tensor([2, 3, 30]), torch.tensor([0, 0, 1]), users=2, cutoffs=[2])
    >>> {name: [round(value, 4) for value in values.tolist()] for name, values in metrics.items()}
    {'hit_rate@2': [1.0, 0.0], 'recall@2': [0.5, 0.0], 'ndcg@2': [0.3869, 0.0], 'mrr@2': [0.5, 0.0]}
    """
    ranks = ranks.double()
    totals = torch.bincount(row, minlength=users)
    deepest = max(1, int(totals.max())) if users else 1
    ideal_gains = (1 / torch.log2(torch.arange(deepest, device=row.device).double() + 2)).cumsum(0)  # index m-1
    result = {}
    for n in cutoffs:
        hit = (ranks <= n).double()
        hits = _sum_by_user(hit, row, users)
        gains = _sum_by_user(hit / torch.log2(ranks + 1), row, users)
        ideal = ideal_gains[(totals.clamp(1, n) - 1)]
        first = torch.full((users,), float("inf"), dtype=torch.float64, device=row.device)
        first = first.scatter_reduce(0, row, ranks, "amin")
        result[f"hit_rate@{n}"] = (hits > 0).double()
        result[f"recall@{n}"] = hits / totals
        result[f"ndcg@{n}"] = gains / ideal
        result[f"mrr@{n}"] = torch.where(first <= n, 1 / first, 0.0)
    return result


def group_metrics(
    ranks: Tensor, shelf_ranks: Tensor, again: Tensor, row: Tensor, users: int, cutoffs: list[int]
) -> dict[str, Tensor]:
    """Compute `user_metrics` of all targets, and beside them of each group, in the whole list and on its own shelf.

    Parameters
    ----------
    ranks : (T,) among all items.
    shelf_ranks : (T,) among the items of the target's own group: those of the history, or all others.
    again : (T,) bool, the target lies in its user's history.

    Returns
    -------
    name -> (B,) float64: ``recall@20``, ``again/recall@20``, ``new/recall@20``, ``shelf_again/recall@20``,
    ``shelf_new/recall@20``, and so on. Only the targets of the group count, also in the divisor; NaN for a user who has
    none of them. A group without any target has no entries.

    Examples
    --------
    A target of the history is found at rank 2, first of its shelf, and a new one at rank 3, second of its shelf:

    >>> ranks, shelf_ranks, again = torch.tensor([2, 3]), torch.tensor([1, 2]), torch.tensor([True, False])
    >>> found = group_metrics(ranks, shelf_ranks, again, torch.tensor([0, 0]), users=1, cutoffs=[2])
    >>> {name: value.item() for name, value in found.items() if "recall" in name and "shelf" not in name}
    {'recall@2': 0.5, 'again/recall@2': 1.0, 'new/recall@2': 0.0}
    >>> {name: value.item() for name, value in found.items() if "recall" in name and "shelf" in name}
    {'shelf_again/recall@2': 1.0, 'shelf_new/recall@2': 1.0}
    """
    result = user_metrics(ranks, row, users, cutoffs)
    for group, inside in (("again", again), ("new", ~again)):
        for prefix, group_ranks in ((group, ranks), (f"shelf_{group}", shelf_ranks)):
            found = metrics_among(group_ranks, inside, row, users, cutoffs)
            result |= {f"{prefix}/{name}": values for name, values in found.items()}
    return result


def metrics_among(ranks: Tensor, inside: Tensor, row: Tensor, users: int, cutoffs: list[int]) -> dict[str, Tensor]:
    """Compute `user_metrics` of the targets that are `inside` (T,) bool alone; nothing if there are none.

    Returns
    -------
    name -> (B,) float64, NaN for a user who has none of them.

    Examples
    --------
    >>> ranks, row, inside = torch.tensor([1, 9, 2]), torch.tensor([0, 0, 1]), torch.tensor([True, False, False])
    >>> metrics_among(ranks, inside, row, users=2, cutoffs=[5])["recall@5"].tolist()
    [1.0, nan]
    """
    counted, own_row = row[inside].unique(return_inverse=True)
    result = {}
    if len(counted):
        for name, values in user_metrics(ranks[inside], own_row, len(counted), cutoffs).items():
            result[name] = values.new_full((users,), float("nan"))
            result[name][counted] = values
    return result


def _sum_by_user(values: Tensor, row: Tensor, users: int) -> Tensor:
    return torch.zeros(users, dtype=values.dtype, device=values.device).index_add_(0, row, values)

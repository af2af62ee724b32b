"""What several interests of a user are worth: do they list different items, and does each find any?

Axes: B users, K interests, n places of a list, T targets.
"""

from __future__ import annotations

import torch
from torch import Tensor


def list_overlap(lists: Tensor, own: Tensor) -> Tensor:
    """(B,) share of items that two of a user's lists have in common, the mean over pairs; NaN for a single interest.

    lists : (B, K, n), of distinct items, 0 at empty places.  own : (B, K) bool.

    Examples
    --------
    >>> lists = torch.tensor([[[2, 3], [3, 4]]])
    >>> list_overlap(lists, torch.tensor([[True, True]])).tolist()
    [0.5]
    """
    users, count, n = lists.shape
    common = torch.zeros(users, device=lists.device)
    for one in range(count):
        for other in range(one + 1, count):
            same = lists[:, one].unsqueeze(2) == lists[:, other].unsqueeze(1)
            both = (same & (lists[:, one] > 0).unsqueeze(2)).sum((1, 2)) / n
            common += both * (own[:, one] & own[:, other])
    number = own.sum(1)
    return common / (number * (number - 1) / 2)


def best_interest_recall(lists: Tensor, own: Tensor, row: Tensor, targets: Tensor) -> Tensor:
    """(B,) recall of the one interest that finds most of a user's targets with a list of its own.

    Less than the recall of all interests together: several are needed. More: the merged list chooses badly.

    Parameters
    ----------
    lists : (B, K, n).  own : (B, K) bool.
    row, targets : (T,) user and item of each target; every user has at least one.

    Examples
    --------
    >>> lists = torch.tensor([[[2, 3], [3, 4]]])
    >>> both = torch.tensor([[True, True]])
    >>> best_interest_recall(lists, both, torch.tensor([0, 0, 0]), torch.tensor([2, 3, 9])).tolist()
    [0.6666666865348816]
    """
    found = (lists[row] == targets.view(-1, 1, 1)).any(2) & own[row]  # (T, K)
    hits = torch.zeros(lists.shape[:2], device=lists.device).index_add_(0, row, found.float())
    return hits.amax(1) / torch.bincount(row, minlength=len(lists))

"""What lists are made of, whether they hit or not: how popular, how equal, how diverse, how like the user's history.

Axes: B users, n places of a list, V item indices, C categories. Categories of items are `Bags`: bag i holds the
categories of item i, each at weight 1 / (their number); it is empty where nothing is known of the item.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mind_core.features import Bags

SMOOTHING = 0.01  # of `calibration`: the share of the history that is mixed into the list


def gini(counts: Tensor) -> float:
    """Say how unequally places are dealt out to items: 0 = all have as many, near 1 = one has them all.

    G = sum_i (2 i - n - 1) x_i / (n sum_i x_i), with x_1 <= ... <= x_n the places of the n items.

    counts : (n,), items that have none included.

    Examples
    --------
    >>> gini(torch.tensor([3, 3, 3])), gini(torch.tensor([0, 0, 0, 4]))
    (0.0, 0.75)
    """
    x, n = counts.double().sort().values, len(counts)
    total = float(x.sum())
    if not total:
        return 0.0
    rank = torch.arange(1, n + 1, dtype=torch.float64, device=x.device)
    return float(((2 * rank - n - 1) * x).sum()) / (n * total)


def self_information(counts: Tensor) -> Tensor:
    """Compute how surprising each item is, in bits: -log2 of its share of the events, a count of 0 being taken as 1.

    counts : (V,) events in the train split.  Returns (V,) float32.

    Examples
    --------
    >>> self_information(torch.tensor([0, 4, 2, 2])).tolist()
    [3.0, 1.0, 2.0, 2.0]
    """
    total = counts.sum().clamp(min=1).double()
    return (total.log2() - counts.clamp(min=1).double().log2()).float()


def novelty(items: Tensor, information: Tensor) -> Tensor:
    """(B,) mean self-information of the items of a list, in bits; NaN for an empty one.

    items : (B, n), 0 at an empty place.  information : (V,), as `self_information` has it.

    Source: Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender systems".

    Examples
    --------
    >>> novelty(torch.tensor([[2, 3], [3, 0]]), torch.tensor([0.0, 0.0, 1.0, 4.0])).tolist()
    [2.5, 4.0]
    """
    there = items > 0
    return (information[items] * there).sum(1) / there.sum(1)


def jaccard_distances(items: Tensor, categories: Bags) -> Tensor:
    """(B, n, n) 1 - |A & B| / |A | B| of the sets of categories of two items of a list.

    NaN where a place is empty or an item has no category; the distance of a place to itself is not of interest.

    items : (B, n), 0 at an empty place.

    Examples
    --------
    Items 2 and 3 have category 0, item 3 has category 1 as well, item 4 has none:

    >>> bags = Bags(torch.tensor([0, 0, 0, 1, 3, 3]), torch.tensor([0, 0, 1]), torch.tensor([1, 0.5, 0.5]))
    >>> jaccard_distances(torch.tensor([[2, 3, 4]]), bags)[0].tolist()
    [[0.0, 0.5, nan], [0.5, 0.0, nan], [nan, nan, nan]]
    """
    users, n = items.shape
    place, category = _entries(items.flatten(), categories)
    # a user's categories are numbered from 0, so that the tile is as wide as the richest user and not C
    width = int(categories.rows.max()) + 1 if len(categories.rows) else 1
    keys, number = (place.div(n, rounding_mode="floor") * width + category).unique(return_inverse=True)
    before = torch.searchsorted(keys, torch.arange(users, device=items.device) * width)
    number = number - before[place.div(n, rounding_mode="floor")]
    has = torch.zeros(users * n, int(number.max()) + 1 if len(number) else 1, device=items.device)
    has[place, number] = 1.0
    has = has.view(users, n, -1)
    both, size = has @ has.transpose(1, 2), has.sum(2)
    either = size.unsqueeze(2) + size.unsqueeze(1) - both
    known = (size > 0).unsqueeze(2) & (size > 0).unsqueeze(1)
    return torch.where(known, 1 - both / either, float("nan"))


def list_diversity(distances: Tensor) -> Tensor:
    """(B,) mean distance of two items of a list, over the pairs that have one; NaN without any.

    distances : (B, n, n), as of `jaccard_distances`.

    Source: Ziegler et al. 2005, "Improving recommendation lists through topic diversification", eq. 3.

    Examples
    --------
    >>> nan = float("nan")
    >>> list_diversity(torch.tensor([[[0.0, 0.5, nan], [0.5, 0.0, nan], [nan, nan, nan]]])).tolist()
    [0.5]
    """
    return _mean_over(distances, torch.ones_like(distances, dtype=torch.bool))


def diversity_by_interest(distances: Tensor, interest: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) twice: mean distance of two items that one interest found, and of two that different interests found.

    NaN where a list has no such pair. Interests that divide the taste have the second above the first.

    distances : (B, n, n).  interest : (B, n), which found the item.

    Examples
    --------
    >>> distances = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]])
    >>> within, across = diversity_by_interest(distances, torch.tensor([[0, 0, 1]]))
    >>> within.tolist(), across.tolist()
    ([0.0], [1.0])
    """
    same = interest.unsqueeze(2) == interest.unsqueeze(1)
    return _mean_over(distances, same), _mean_over(distances, ~same)


def category_shares(row: Tensor, items: Tensor, categories: Bags, users: int, count: int) -> Tensor:
    """(B, C) distribution of the categories of a user's items; zeros where none of them has any.

    Parameters
    ----------
    row, items : (E,) user and item; an item that stands several times counts as often. Item 0 is no item.
    users, count : B and C.

    Examples
    --------
    >>> bags = Bags(torch.tensor([0, 0, 0, 1, 3]), torch.tensor([0, 0, 1]), torch.tensor([1, 0.5, 0.5]))
    >>> category_shares(torch.tensor([0, 0]), torch.tensor([2, 3]), bags, users=1, count=2).tolist()
    [[0.75, 0.25]]
    """
    chosen = categories.select(items)
    event = torch.repeat_interleave(torch.arange(len(items), device=items.device), chosen.offsets.diff())
    sums = torch.zeros(users * count, device=items.device)
    sums.index_add_(0, row[event] * count + chosen.rows, chosen.weights)
    sums = sums.view(users, count)
    return sums / sums.sum(1, keepdim=True).clamp(min=torch.finfo(sums.dtype).tiny)


def calibration(history: Tensor, shown: Tensor) -> Tensor:
    """(B,) how far a list's categories are from the history's: 0 = in the same shares, more = further off.

    KL(p | q') = sum_c p_c ln(p_c / q'_c) with q' = (1 - a) q + a p, a = SMOOTHING, so that a category which the list
    lacks costs much and not infinity: at most ln(1 / a) = 4.6. NaN where either has no category.

    history, shown : (B, C), p and q.

    Source: Steck 2018, "Calibrated recommendations", eq. 4 and 5.

    Examples
    --------
    >>> half, one = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
    >>> calibration(half, half).tolist(), [round(value, 3) for value in calibration(half, one).tolist()]
    ([0.0], [1.959])
    """
    mixed = (1 - SMOOTHING) * shown + SMOOTHING * history
    apart = (torch.special.xlogy(history, history) - torch.special.xlogy(history, mixed)).sum(1)
    known = (history.sum(1) > 0) & (shown.sum(1) > 0)
    return torch.where(known, apart, float("nan"))


def _entries(items: Tensor, categories: Bags) -> tuple[Tensor, Tensor]:
    """(place in `items`, category) of each category of each item."""
    chosen = categories.select(items)
    place = torch.repeat_interleave(torch.arange(len(items), device=items.device), chosen.offsets.diff())
    return place, chosen.rows


def _mean_over(distances: Tensor, pairs: Tensor) -> Tensor:
    """(B,) mean of `distances` (B, n, n) over the `pairs` i < j that have one."""
    counted = pairs.triu(1) & ~distances.isnan()
    return distances.masked_fill(~counted, 0.0).sum((1, 2)) / counted.sum((1, 2))

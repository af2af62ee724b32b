"""How varied a list is: categories, items that are unlike each other, interests that do not find the same.

Axes: B users, n places of a list, d dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mind_core.hits import TopList


def variety(found: TopList, category: Tensor, item_vectors: Tensor) -> dict[str, Tensor]:
    """Measure the variety of each user's list: name -> (B,) float64, NaN where a list has no pair of the kind.

    categories          distinct categories in the list
    category_diversity  share of the pairs whose categories differ (Diversity@N of Cen et al. 2020)
    intra_list          1 - cosine of the item vectors, the mean over pairs
    across_interests    the same over the pairs that different interests found
    interests           distinct interests that found items of the list

    Parameters
    ----------
    found : (B, n), 0 at empty places, which do not count.
    category : (V,) int64 by item index.
    item_vectors : (V, d).

    Examples
    --------
    >>> found = TopList(torch.tensor([[2, 3, 4]]), torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0, 0, 1]]))
    >>> vectors = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> measured = variety(found, torch.tensor([0, 0, 7, 7, 8]), vectors)
    >>> {name: round(value.item(), 3) for name, value in measured.items()}
    {'categories': 2.0, 'category_diversity': 0.667, 'intra_list': 0.667, 'across_interests': 1.0, 'interests': 2.0}
    """
    items = found.items
    there = items > 0
    pairs = (there.unsqueeze(1) & there.unsqueeze(2)).triu(1)
    kind = category[items]
    vectors = functional.normalize(item_vectors[items], dim=-1)
    apart = 1 - (vectors @ vectors.transpose(1, 2)).double()
    of_other = (found.interest.unsqueeze(1) != found.interest.unsqueeze(2)) & pairs
    return {
        "categories": _distinct(kind, there),
        "category_diversity": _mean((kind.unsqueeze(1) != kind.unsqueeze(2)).double(), pairs),
        "intra_list": _mean(apart, pairs),
        "across_interests": _mean(apart, of_other),
        "interests": _distinct(found.interest, there),
    }


def _distinct(values: Tensor, there: Tensor) -> Tensor:
    """(B,) number of distinct values (B, n), of those that are `there`."""
    low = torch.iinfo(torch.int64).min
    ordered = values.masked_fill(~there, low).sort(dim=1).values
    new = torch.ones_like(there)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return (new & (ordered > low)).sum(1).double()


def _mean(values: Tensor, pairs: Tensor) -> Tensor:
    """(B,) mean of (B, n, n) over `pairs`; NaN without any."""
    return (values * pairs).sum((1, 2)) / pairs.sum((1, 2))

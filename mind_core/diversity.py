"""What a list holds beyond the best scores: places for every interest, different categories, caps on a category.

Pure choices among candidates, a place at a time, for all users at once:

    candidates (B, C) or (B, K, M)  ->  best | quota | round_robin | greedy, within caps  ->  a list of n items

Axes: B users, C candidates, K interests, M candidates of an interest. A candidate list may name an item several times,
once for each interest that found it; a list never does. Ties go to the higher score, then to the lower item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mind_core.hits import TopList

Policy = Literal["best", "quota", "round_robin", "greedy"]
"""best: the highest scores. quota: so many places for each interest, then the highest scores. round_robin: interests
name their best item in turn. greedy: the score, plus lambda for every listed item of another category."""

NO_CATEGORY = -1


class Cap(NamedTuple):
    """At most `limit` items of a category in a list.

    category : (V,) int64 by item index; NO_CATEGORY where an item has none, which the cap does not bind.
    """

    category: Tensor
    limit: int


def pooled(items: Tensor, scores: Tensor) -> TopList:
    """Put the candidates of all interests side by side: (B, K, M) to (B, K * M), by falling score, then item.

    Parameters
    ----------
    items : (B, K, M) int64; 0 or less marks an empty place.
    scores : (B, K, M), what the interest gives.

    Examples
    --------
    >>> pooled(torch.tensor([[[7, 9], [9, 0]]]), torch.tensor([[[0.5, 0.2], [0.8, 0.0]]])).items.tolist()
    [[9, 7, 9, 0]]
    """
    count, depth = items.shape[1:]
    interest = torch.arange(count, device=items.device).repeat_interleave(depth).expand(len(items), -1)
    flat = TopList(items.flatten(1), scores.flatten(1).masked_fill(items.flatten(1) <= 0, float("-inf")), interest)
    order = torch.sort(flat.items, dim=1, stable=True).indices
    order = order.gather(1, torch.sort(flat.scores.gather(1, order), dim=1, descending=True, stable=True).indices)
    return TopList(*(column.gather(1, order) for column in flat))


def best(candidates: TopList, n: int, caps: Sequence[Cap] = ()) -> TopList:
    """Take the n candidates (B, C) of the highest scores that the caps let in."""
    return _chosen(candidates, n, caps)


def greedy(candidates: TopList, n: int, category: Tensor, weight: float, caps: Sequence[Cap] = ()) -> TopList:
    """Build a list S place by place, each time the item with the highest f(u, i) + lambda * sum_{k in S} delta(i, k).

    delta(i, k) is 1 where the categories of i and k differ, else 0: a greedy maximum of

        Q(u, S) = sum_{i in S} f(u, i) + lambda * sum_{i in S} sum_{k in S} delta(i, k)

    The list stands in the order of the choice. With lambda = 0 it is `best`.

    Parameters
    ----------
    candidates : (B, C), f in `scores`.
    category : (V,) int64 by item index; items without one (NO_CATEGORY) are of one category together.
    weight : lambda >= 0, in units of the score.

    Source: eq. 8 and algorithm 1 of Cen et al. 2020, "Controllable Multi-Interest Framework for Recommendation".

    Examples
    --------
    Items 2 and 3 are of one category, 4 of another. A lambda of .2 outweighs a score that is .1 lower:

    >>> found = TopList(torch.tensor([[2, 3, 4]]), torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3).long())
    >>> category = torch.tensor([-1, -1, 5, 5, 6])
    >>> greedy(found, 2, category, weight=0.2).items.tolist(), greedy(found, 2, category, weight=0.0).items.tolist()
    ([[2, 4]], [[2, 3]])
    """
    return _chosen(candidates, n, caps, category=category, weight=weight)


def round_robin(candidates: TopList, n: int, interests: int, caps: Sequence[Cap] = ()) -> TopList:
    """Let the interests name their best item that is not listed yet, in turn; who has none left is passed over.

    The interest whose best item has the highest score begins. The list stands in the order of the turns; `interest` and
    `scores` are those of the interest that named the item.

    Parameters
    ----------
    candidates : (B, C), of each interest its own.
    interests : K.

    Examples
    --------
    >>> found = pooled(torch.tensor([[[7, 9], [5, 7]]]), torch.tensor([[[0.5, 0.2], [0.4, 0.3]]]))
    >>> round_robin(found, 3, interests=2).items.tolist()
    [[7, 5, 9]]
    """
    order = _first_come(candidates, interests)
    return _chosen(candidates, n, caps, turn=lambda places, free: _next(places, free, order), interests=interests)


def quota(candidates: TopList, n: int, interests: int, places: int, caps: Sequence[Cap] = ()) -> TopList:
    """Keep `places` of a list for each of a user's interests, and give the rest to the highest scores.

    If the list is too short for all, the interests share it evenly. It stands by falling score.

    Parameters
    ----------
    candidates : (B, C), of each interest its own.
    interests : K.

    Examples
    --------
    The second interest would have no place by its score:

    >>> found = pooled(torch.tensor([[[7, 8, 9], [5, 6, 0]]]), torch.tensor([[[0.9, 0.8, 0.7], [0.2, 0.1, 0.0]]]))
    >>> quota(found, 3, interests=2, places=1).items.tolist()
    [[7, 8, 5]]
    """
    order = _first_come(candidates, interests)

    def turn(filled: Tensor, free: Tensor) -> Tensor:
        waiting = free & (filled < places)
        return torch.where(waiting.any(1, keepdim=True), _next(filled, waiting, order), free)

    found = _chosen(candidates, n, caps, turn=turn, interests=interests)
    by_score = torch.sort(found.scores, dim=1, descending=True, stable=True).indices
    return TopList(*(column.gather(1, by_score) for column in found))


def _first_come(candidates: TopList, interests: int) -> Tensor:
    """(B, K) the place of each interest in the turn: by the score of its best candidate, then by its number."""
    tops = candidates.scores.new_full((len(candidates.items), interests), float("-inf"))
    tops = tops.scatter_reduce(1, candidates.interest, candidates.scores, "amax")
    return torch.sort(tops, dim=1, descending=True, stable=True).indices.argsort(1)


def _next(filled: Tensor, free: Tensor, order: Tensor) -> Tensor:
    """(B, K) bool, the one of the `free` interests that has the fewest places `filled`, then the earliest turn."""
    count = filled.shape[1]
    key = (filled * count + order).masked_fill(~free, torch.iinfo(torch.int64).max)
    return nn.functional.one_hot(key.argmin(1), count).bool() & free


def _chosen(
    candidates: TopList,
    n: int,
    caps: Sequence[Cap],
    *,
    category: Tensor | None = None,
    weight: float = 0.0,
    turn: Callable[[Tensor, Tensor], Tensor] | None = None,
    interests: int = 0,
) -> TopList:
    """Fill n places, each with the free candidate of the highest worth.

    turn : from the places that each interest has filled, and whether it has a free candidate, (B, K) both, to which may
        name the next item, (B, K) bool. None: all may.
    """
    items, scores, interest = candidates
    users = torch.arange(len(items), device=items.device)
    free = scores > float("-inf")
    worth = scores.double()
    of_cap = [cap.category[items.clamp(min=0)] for cap in caps]
    in_list = [torch.zeros_like(items) for _ in caps]  # items of the candidate's category that are listed
    kind = None if category is None else category[items.clamp(min=0)]
    filled = items.new_zeros(len(items), interests)
    places: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(min(n, items.shape[1])):
        open_ = free
        for cap, theirs, listed in zip(caps, of_cap, in_list, strict=True):
            open_ = open_ & ((listed < cap.limit) | (theirs == NO_CATEGORY))
        if turn is not None:
            able = torch.zeros_like(filled).scatter_reduce(1, interest, open_.long(), "amax").bool()
            open_ = open_ & turn(filled, able).gather(1, interest)
        value, place = worth.masked_fill(~open_, float("-inf")).max(1)
        found = value > float("-inf")
        if not found.any():
            break
        item = torch.where(found, items[users, place], 0)
        by = interest[users, place]
        places.append((item, scores[users, place].masked_fill(~found, float("-inf")), torch.where(found, by, 0)))
        free = free & (items != item.unsqueeze(1))
        for theirs, listed in zip(of_cap, in_list, strict=True):
            listed += (theirs == theirs[users, place].unsqueeze(1)) & found.unsqueeze(1)
        if kind is not None:  # lambda for each listed item of another category, less the same for every candidate
            worth = worth - weight * ((kind == kind[users, place].unsqueeze(1)) & found.unsqueeze(1))
        if turn is not None:
            filled[users, by] += found
    return _as_list(places, candidates, n)


def _as_list(places: list[tuple[Tensor, Tensor, Tensor]], like: TopList, n: int) -> TopList:
    """Stack the places that were filled into (B, n), empty where the candidates ran out."""
    out = TopList(
        like.items.new_zeros(len(like.items), n),
        like.scores.new_full((len(like.items), n), float("-inf")),
        like.interest.new_zeros(len(like.items), n),
    )
    for place, columns in enumerate(places):
        for column, values in zip(out, columns, strict=True):
            column[:, place] = values
    return out

"""Lists by shelf from dense scores of a tile of users, and what of a history they need.

    scores (B, V), history -> top lists of `all | again | new` items

Rules (mind_core.baselines) score every item of a tile of users; a model's items are searched instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from mind_core.hits import Pairs, TopList
from mind_core.sequences import Sequences
from mind_core.special_rows import FIRST_ITEM

Shelf = Literal["all", "again", "new"]
"""Which items may stand in a list: all of them, those of the user's whole history, or those that are not in it."""


def history_pairs(sequences: Sequences, users: Tensor) -> Pairs:
    """Gather every behaviour of `users` (B,) as (row, item), oldest first within a user."""
    sizes = sequences.lengths[users]
    row = torch.repeat_interleave(torch.arange(len(users), device=users.device), sizes)
    start = sequences.offsets[users] - (sizes.cumsum(0) - sizes)
    place = torch.arange(len(row), device=users.device) + start[row]
    return row, sequences.items[place].long()


def times_in_history(sequences: Sequences, users: Tensor, items: Tensor) -> Tensor:
    """Count how often each of `items` (B, n) is in the whole history of its user, `users` (B,): (B, n) int64.

    >>> history = Sequences(torch.tensor([7, 3, 7, 3, 7]), torch.tensor([0, 3, 5]))
    >>> times_in_history(history, torch.tensor([0, 1]), torch.tensor([[7, 3, 9], [7, 3, 9]])).tolist()
    [[2, 1, 0], [1, 1, 0]]
    """
    row, item = history_pairs(sequences, users)
    if not len(row) or not items.numel():
        return torch.zeros_like(items)
    catalogue = 1 + max(int(item.max()), int(items.max()))
    pairs, times = (row * catalogue + item).unique(return_counts=True)
    wanted = torch.arange(len(users), device=users.device).unsqueeze(1) * catalogue + items
    place = torch.searchsorted(pairs, wanted).clamp(max=len(pairs) - 1)
    return torch.where(pairs[place] == wanted, times[place], 0)


def own_pairs(history: Pairs, catalogue: int) -> Pairs:
    """Name the distinct known items of each history, by row, then by item.

    Examples
    --------
    >>> [each.tolist() for each in own_pairs((torch.tensor([0, 0, 0, 1]), torch.tensor([7, 3, 7, 1])), 9)]
    [[0, 0], [3, 7]]
    """
    row, item = history
    known = item >= FIRST_ITEM
    pairs = (row[known] * catalogue + item[known]).unique()
    return pairs.div(catalogue, rounding_mode="floor"), pairs % catalogue


@torch.no_grad()
def top_lists(values: Tensor, history: Pairs, sizes: Mapping[Shelf, int]) -> dict[Shelf, TopList]:
    """Choose the best items of each shelf in `sizes` from the same scores. Padding and unknown items are in none.

    Parameters
    ----------
    values : (B, V) scores; they are overwritten, so that a tile's scores are held once.
    history : whose items are on the shelf `again`; `new` is the rest.

    Examples
    --------
    Items 2, 3, 4 of one user, who has 4 in the history:

    >>> scores = torch.tensor([[9.0, 9.0, 1.0, 2.0, 3.0]])
    >>> history = torch.tensor([0]), torch.tensor([4])
    >>> lists = top_lists(scores, history, {"all": 2, "again": 2, "new": 2})
    >>> {shelf: found.items.tolist() for shelf, found in lists.items()}
    {'all': [[4, 3]], 'again': [[4, 0]], 'new': [[3, 2]]}
    """
    values[:, :FIRST_ITEM] = float("-inf")
    lists: dict[Shelf, TopList] = {}
    if "all" in sizes:
        lists["all"] = _top_list(values, None, sizes["all"])
    if "again" in sizes:
        candidates = _own_items(history, *values.shape)
        theirs = values.gather(1, candidates)  # an empty place is padding's, -inf
        lists["again"] = _top_list(theirs, candidates, sizes["again"])
    if "new" in sizes:  # last, as it overwrites
        values[history] = float("-inf")
        lists["new"] = _top_list(values, None, sizes["new"])
    return lists


def _own_items(history: Pairs, users: int, catalogue: int) -> Tensor:
    """Lay out the distinct items of each history, (B, H) by rising index, then 0: H is the largest number of them."""
    row, item = history
    pairs = (row * catalogue + item).unique()  # sorted: by row, then by item
    row, item = pairs.div(catalogue, rounding_mode="floor"), pairs % catalogue
    sizes = torch.bincount(row, minlength=users)
    place = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[row]
    items: Tensor = item.new_zeros(users, int(sizes.max()) if users else 0)
    items[row, place] = item
    return items


def _top_list(values: Tensor, candidates: Tensor | None, n: int) -> TopList:
    """Take the n best of `values` (B, C), of the items `candidates` (B, C), or of all items, C = V."""
    places = _top_items(values, min(n, values.shape[1]))
    top, by_score = torch.sort(values.gather(1, places), dim=1, descending=True, stable=True)
    places = places.gather(1, by_score)
    items = places if candidates is None else candidates.gather(1, places)
    items = items.masked_fill(top == float("-inf"), 0)
    missing = n - items.shape[1]
    pad = nn.functional.pad
    items = pad(items, (0, missing))
    return TopList(items, pad(top, (0, missing), value=float("-inf")), torch.zeros_like(items))


def _top_items(scores: Tensor, n: int) -> Tensor:
    """(B, n) indices of the n highest scores by rising index; among equal scores the lowest indices are taken."""
    places = min(n + 1, scores.shape[1])
    if n == 0:  # no candidates at all
        return torch.zeros(len(scores), 0, dtype=torch.int64, device=scores.device)
    top, items = scores.topk(places, dim=1)
    items = items[:, :n].sort(dim=1).values
    if places > n:  # topk leaves open which of several equal scores it takes: settle that where it matters
        open_rows = (top[:, n - 1] == top[:, n]).nonzero().squeeze(1)
        row_scores, threshold = scores[open_rows], top[open_rows, n - 1 : n]
        above, equal = row_scores > threshold, row_scores == threshold
        taken = above | (equal & (equal.cumsum(1) <= n - above.sum(1, keepdim=True)))
        items[open_rows] = taken.nonzero()[:, 1].view(-1, n)
    return items

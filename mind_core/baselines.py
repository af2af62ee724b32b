"""Rules that need no training, for a model to be measured against: what is popular, and what the user and others did.

Each is a `Scorer`: it scores every item for the users of a tile, and is ranked as a model is. Where a rule has nothing
to say of an item, the popular come first, below all that it has something to say of.

Axes: B users of a tile, V items with padding and unknown, N neighbours of an item.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mind_core.hits import Pairs
from mind_core.sequences import Sequences
from mind_core.shelves import history_pairs

NEIGHBOURS_AT_ONCE = 2**22  # that are added up together
NEGLIGIBLE = 1e-6  # a behaviour of less weight counts for its own item alone


def recent_counts(users: Tensor, items: Tensor, times: Tensor | None, catalogue: int, share: float) -> Tensor:
    """Count the newest `share` of all events by item, (V,) int64.

    Parameters
    ----------
    users, items : (E,) of the events, a user's together, oldest first.
    times : (E,) by which events of different users can be compared; events as old as the last that counts do too.
        None: the newest `share` of each user's own events is counted, rounded up.

    Examples
    --------
    The newest half of four events; by time, and of each of the two users:

    >>> users, items = torch.tensor([0, 0, 1, 1]), torch.tensor([2, 3, 4, 4])
    >>> recent_counts(users, items, torch.tensor([10, 20, 30, 40]), 5, 0.5).tolist()
    [0, 0, 0, 0, 2]
    >>> recent_counts(users, items, None, 5, 0.5).tolist()
    [0, 0, 0, 1, 1]
    """
    if not len(items):
        return torch.zeros(catalogue, dtype=torch.int64)
    if times is not None:
        since = times.kthvalue(len(times) - math.ceil(share * len(times)) + 1).values
        return torch.bincount(items[times >= since], minlength=catalogue)
    _, sizes = users.unique_consecutive(return_counts=True)
    stop = torch.repeat_interleave(sizes.cumsum(0), sizes)
    newest = torch.repeat_interleave((share * sizes.double()).ceil().long(), sizes)
    return torch.bincount(items[torch.arange(len(items)) >= stop - newest], minlength=catalogue)


class RecentPopularity:
    """Everybody gets the items that were most frequent lately; among equals, those most frequent over all.

    Parameters
    ----------
    recent, counts : (V,) int64 events per item: lately, as `recent_counts` has them, and in the whole training split.

    Examples
    --------
    Items 2 and 3 were equally frequent lately, item 3 is the more frequent over all:

    >>> rule = RecentPopularity(torch.tensor([0, 0, 5, 5, 1]), torch.tensor([0, 0, 6, 9, 99]))
    >>> nobody = Sequences(torch.zeros(0).long(), torch.zeros(2).long())
    >>> rule.score(nobody, torch.tensor([0]))[0, 2:].tolist()
    [2.0, 3.0, 1.0]
    """

    def __init__(self, recent: Tensor, counts: Tensor):
        # a place among the distinct pairs (recent, all): whole numbers, exact in float32, where log-counts would not be
        self.values: Tensor = (recent * (int(counts.max()) + 1) + counts).unique(return_inverse=True)[1].float()

    def score(self, sequences: Sequences, users: Tensor) -> Tensor:
        return self.values.repeat(len(users), 1)


class PersonalFrequency:
    """The user's own items by count over the whole history, newest first among equals; then the popular.

    It recommends again only. Where seen items are filtered, nothing but popularity is left of it.

    Parameters
    ----------
    counts : (V,) events per item in the training split.

    Examples
    --------
    Item 3 was bought twice, 4 and 2 once, 2 later than 4; of the others 6 is the more popular:

    >>> rule = PersonalFrequency(torch.tensor([0, 0, 9, 9, 9, 1, 2]))
    >>> history = Sequences(torch.tensor([3, 4, 3, 2]), torch.tensor([0, 4]))
    >>> rule.score(history, torch.tensor([0]))[0, 2:].argsort(descending=True).add(2).tolist()
    [3, 2, 4, 6, 5]
    """

    def __init__(self, counts: Tensor):
        self.popular = torch.log1p(counts.double()).float()

    def score(self, sequences: Sequences, users: Tensor) -> Tensor:
        (row, item), count, last = _counted(history_pairs(sequences, users), len(self.popular))
        # from the least to the most: by row, then count, then last place; stable sorts, the least significant key first
        order = last.argsort(stable=True)
        order = order[count[order].argsort(stable=True)]
        order = order[row[order].argsort(stable=True)]
        sizes = torch.bincount(row, minlength=len(users))
        from_least = torch.arange(len(row)) - (sizes.cumsum(0) - sizes)[row[order]]
        values = self.popular.repeat(len(users), 1)
        # whole numbers above every log-count: exact in float32 for 16 million items of a history
        values[row[order], item[order]] = self.popular.max().ceil() + 1 + from_least.float()
        return values


class ItemKNN:
    """Items that others have beside the user's: neighbours by the cosine of co-occurrence.

        score(u, i) = sum over behaviours h of u, the newest first: decay^rank(h) * cos(h, i)

    cos(h, i) = |users of both| / sqrt(|users of h| * |users of i|), and 1 of an item with itself, so that an item of
    the history counts for itself too.

    Parameters
    ----------
    neighbours : (V, N) int32, the N nearest of each item, 0 where there are fewer.
    similarity : (V, N) float32, their cosine, 0 where there are fewer.
    counts : (V,) events per item in the training split, for what no neighbour says anything of.
    decay : of a behaviour's weight from one to the next older one; 1 for none.

    Examples
    --------
    2 and 3 are neighbours, and 3 and 4; a user did 2, then 4:

    >>> neighbours = torch.tensor([[0], [0], [3], [2], [3]])
    >>> similarity = torch.tensor([[0.0], [0.0], [0.5], [0.5], [0.2]])
    >>> rule = ItemKNN(neighbours, similarity, torch.tensor([0, 0, 1, 1, 1]), decay=0.8)
    >>> history = Sequences(torch.tensor([2, 4]), torch.tensor([0, 2]))
    >>> [round(value, 2) for value in rule.score(history, torch.tensor([0]))[0, 2:].tolist()]
    [0.8, 0.6, 1.0]
    """

    def __init__(self, neighbours: Tensor, similarity: Tensor, counts: Tensor, decay: float):
        self.neighbours, self.similarity, self.decay = neighbours, similarity, decay
        popular = torch.log1p(counts.double()).float()
        self.below_all = popular - popular.max() - 1

    def score(self, sequences: Sequences, users: Tensor) -> Tensor:
        catalogue = len(self.below_all)
        row, item, weight = self._weights(history_pairs(sequences, users), catalogue)
        flat = self.below_all.new_zeros(len(users) * catalogue)
        flat[row * catalogue + item] = weight
        heavy = (weight >= NEGLIGIBLE).nonzero().squeeze(1)
        for some in heavy.split(max(1, NEIGHBOURS_AT_ONCE // self.neighbours.shape[1])):
            near = row[some].unsqueeze(1) * catalogue + self.neighbours[item[some]].long()  # (P, N)
            flat.index_add_(0, near.flatten(), (weight[some].unsqueeze(1) * self.similarity[item[some]]).flatten())
        values = flat.view(len(users), catalogue)
        return torch.where(values > 0, values, self.below_all)

    def _weights(self, history: Pairs, catalogue: int) -> tuple[Tensor, Tensor, Tensor]:
        """Sum decay^rank over the behaviours that each distinct item of a user was: row, item, sum."""
        row, item = history
        sizes = torch.bincount(row)
        rank = (sizes.cumsum(0)[row] - 1 - torch.arange(len(row))) if len(row) else row
        pairs, place = (row * catalogue + item).unique(return_inverse=True)
        sums = torch.zeros(len(pairs), dtype=torch.float64).index_add_(0, place, self.decay ** rank.double())
        return pairs.div(catalogue, rounding_mode="floor"), pairs % catalogue, sums.float()


def _counted(history: Pairs, catalogue: int) -> tuple[Pairs, Tensor, Tensor]:
    """Count the distinct (row, item): they, how often each occurs, and the place of its last occurrence."""
    row, item = history
    pairs, place, count = (row * catalogue + item).unique(return_inverse=True, return_counts=True)
    last = torch.zeros_like(pairs).scatter_reduce(0, place, torch.arange(len(row)), "amax")
    return (pairs.div(catalogue, rounding_mode="floor"), pairs % catalogue), count, last

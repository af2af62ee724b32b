"""Scored items of users, flat, and the lists they make: what is found in blocks, by several interests or by an index.

An item of a user counts once, with its best score; of equal scores the lower item index comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Pairs = tuple[Tensor, Tensor]  # (row, item): row counts the users of a batch from 0


class TopList(NamedTuple):
    """The best n items of B users.

    items : (B, n) int64 by falling score, ties by item index; 0 where the candidates ran out.
    scores : (B, n) float32; -inf where the candidates ran out.
    interest : (B, n) int64, which interest found the item.
    """

    items: Tensor
    scores: Tensor
    interest: Tensor


@dataclass(frozen=True)
class Hits:
    """Scored items, flat: (H,) user, counting from 0, item, score, and the interest that gives the score."""

    user: Tensor
    item: Tensor
    score: Tensor
    interest: Tensor

    def __len__(self) -> int:
        return len(self.user)

    def __add__(self, other: Hits) -> Hits:
        return Hits(*(torch.cat(both) for both in zip(self.columns, other.columns, strict=True)))

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.user, self.item, self.score, self.interest

    def __getitem__(self, index: Tensor) -> Hits:
        return Hits(*(column[index] for column in self.columns))

    def best_of_items(self) -> Hits:
        """Keep one hit for each user and item: the best score, of equals the first interest; by user, then item."""
        catalogue = 1 + int(self.item.max()) if len(self) else 1
        pairs, place = (self.user * catalogue + self.item).unique(return_inverse=True)
        if len(pairs) == len(self):
            return self[place.argsort()]
        score = self.score.new_full((len(pairs),), float("-inf")).scatter_reduce(0, place, self.score, "amax")
        first = torch.where(self.score == score[place], self.interest, torch.iinfo(torch.int64).max)
        interest = torch.full_like(pairs, torch.iinfo(torch.int64).max).scatter_reduce(0, place, first, "amin")
        return Hits(pairs.div(catalogue, rounding_mode="floor"), pairs % catalogue, score, interest)

    def ranked(self, users: int) -> tuple[Hits, Tensor]:
        """Sort by user, then falling score, then item, which must already rise within a user.

        Returns
        -------
        The hits in that order, and the rank (H,) of each among its user's, from 0.
        """
        bits = (self.score + 0.0).view(torch.int32).long()  # + 0.0: -0.0 and 0.0 are one score
        falling = -torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)
        hits = self[(self.user * 2**33 + falling).sort(stable=True).indices]
        sizes = torch.bincount(hits.user, minlength=users)
        return hits, torch.arange(len(hits), device=hits.user.device) - (sizes.cumsum(0) - sizes)[hits.user]

    def top(self, users: int, n: int) -> TopList:
        """Lay out the n best of each of `users` users; each user has an item at most once."""
        hits, rank = self.best_of_items().ranked(users)
        kept = rank < n
        hits, rank = hits[kept], rank[kept]
        items = hits.item.new_zeros(users, n)
        scores = hits.score.new_full((users, n), float("-inf"))
        interest = hits.interest.new_zeros(users, n)
        for laid, column in ((items, hits.item), (scores, hits.score), (interest, hits.interest)):
            laid[hits.user, rank] = column
        return TopList(items, scores, interest)


def merge_interests(items: Tensor, scores: Tensor, n: int) -> TopList:
    """Merge one candidate list per interest (as an ANN index returns them) into one list per user.

    An item found by several interests appears once, with its best score.

    Parameters
    ----------
    items : (B, K, M) int64; 0 or less marks an empty place.
    scores : (B, K, M); -inf for interests that are not the user's own.
    """
    return candidates(items, scores).top(len(items), n)


def candidates(items: Tensor, scores: Tensor) -> Hits:
    """Read lists by interest, as `merge_interests` takes them, as hits."""
    user, interest, place = ((items > 0) & (scores > float("-inf"))).nonzero(as_tuple=True)
    return Hits(user, items[user, interest, place], scores[user, interest, place], interest)

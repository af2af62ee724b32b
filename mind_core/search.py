"""Exact search: the n items of the highest score, over blocks of the catalogue, with memory bounded by a block.

    f(u, i) = max_j v_j . e_i   over the user's own interests

A matrix product finds the few items that may be among the best, and only those are scored as the result says it. The
product is fast, but rounds by its shape and by the machine; the score that counts is summed in one order, element by
element (`inner_products`). So an item's score is the same bits for any company the user is in, any block and number of
threads, and on a GPU. What the product may be off by is bounded, and an item that could pass the n-th best within that
bound is scored: nothing is missed.

Axes: B users, K interests, d dimension, V items with padding and unknown, R rows (one for each own interest of the
users that are searched for together), n places of a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from mind_core.hits import Hits, Pairs, TopList
from mind_core.special_rows import FIRST_ITEM

ROWS_AT_ONCE = 64  # interests in one product: more of them make it no faster
CHUNK, FIRST_CHUNK = 32, 8  # items of which the best is looked at first; in the first block
SCORES_AT_ONCE = {"cpu": 2**20, "cuda": 2**26}  # of a block: about the cache of a core; what keeps a GPU busy
EXACT_AT_ONCE = 2**22  # numbers that are summed in order together
UNIT = 2.0**-24  # a float32 operation is off by at most so much of its result
LOWEST = torch.finfo(torch.float32).min


class Catalogue:
    """Item vectors (V, d) to be searched; rows 0 (padding) and 1 (unknown) are never found."""

    def __init__(self, vectors: Tensor):
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def longest(self) -> Tensor:
        """The largest norm of an item's vector, computed once."""
        blocks = self.vectors[FIRST_ITEM:].split(2**18)
        return torch.stack(
            [self.vectors.new_zeros(()), *(block.norm(dim=1).amax() for block in blocks if len(block))]
        ).amax()


def inner_products(one: Tensor, other: Tensor) -> Tensor:
    """Sum one * other over the last axis in one order: halves are added, element by element, until one number is left.

    Every step is a single float32 operation of IEEE 754 on each element, so the result has the same bits whatever the
    shapes, the place, the number of threads and the device. It is off by at most (log2 d + 1) roundings.

    Parameters
    ----------
    one, other : (..., d), broadcast against each other.

    Examples
    --------
    >>> inner_products(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 2.0]]))
    tensor([6., 6.])
    """
    terms = one * other
    while (width := terms.shape[-1]) > 1:
        half = (width + 1) // 2
        left, right = terms[..., :half], terms[..., half:]
        terms = left + (right if width % 2 == 0 else functional.pad(right, (0, 1)))
    return terms.squeeze(-1)


@torch.no_grad()
def score_pairs(catalogue: Catalogue, interests: Tensor, own: Tensor, pairs: Pairs) -> Hits:
    """Score some items of each user, as `search` does.

    Parameters
    ----------
    interests : (B, K, d).  own : (B, K) bool.  pairs : (row, item) of the users and items.
    """
    count, dim = interests.shape[1:]
    user, item = pairs
    scores, found_by = [], []
    for some_users, some_items in zip(*(each.split(_at_once(count * dim)) for each in pairs), strict=True):
        each = inner_products(interests[some_users], catalogue.vectors[some_items].unsqueeze(1))
        best = each.masked_fill(~own[some_users], float("-inf")).max(1)
        scores.append(best.values)
        found_by.append(best.indices)
    return Hits(user, item, torch.cat(scores), torch.cat(found_by))


def search(
    catalogue: Catalogue,
    interests: Tensor,
    own: Tensor,
    n: int,
    seen: Pairs | None = None,
    allowed: Tensor | None = None,
) -> TopList:
    """Find the n best items of each user in the whole catalogue, exactly.

    Parameters
    ----------
    interests : (B, K, d).  own : (B, K) bool, the users' own.
    seen : (row, item) pairs to leave out, or None.
    allowed : (V,) bool, the items that may be found; None: all.
    """
    return search_hits(catalogue, interests, own, n, seen, allowed).top(len(interests), n)


@torch.no_grad()
def search_hits(
    catalogue: Catalogue,
    interests: Tensor,
    own: Tensor,
    n: int,
    seen: Pairs | None = None,
    allowed: Tensor | None = None,
) -> Hits:
    """Find what `search` does, as flat hits: the n best of each user, fewer where the candidates ran out."""
    nobody = torch.zeros(0, dtype=torch.int64, device=interests.device)
    found = Hits(nobody, nobody, interests.new_zeros(0), nobody)
    if n < 1:
        return found
    together = max(1, ROWS_AT_ONCE // interests.shape[1])
    for start in range(0, len(interests), together):
        some = slice(start, start + together)
        theirs = None
        if seen is not None:
            here = (seen[0] >= start) & (seen[0] < start + together)
            theirs = seen[0][here] - start, seen[1][here]
        hits = _Search(catalogue, interests[some], own[some], n, theirs, allowed).run()
        found = found + Hits(hits.user + start, hits.item, hits.score, hits.interest)
    return found


class _Search:
    """The search for some users at once: blocks of the catalogue pass by, the best so far are held.

    user, number : (R,) whose each row is, and which of their interests.  rows : (R, d).
    error : (R,) how far a product and the score that counts may be apart.
    bound : (B,) a score that n items of the user are known to reach; LOWEST while there are fewer.
    best, pending : hits that are ranked, and those since.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        interests: Tensor,
        own: Tensor,
        n: int,
        seen: Pairs | None,
        allowed: Tensor | None,
    ):
        self.catalogue, self.n, self.allowed = catalogue, n, allowed
        self.users, dim = len(interests), interests.shape[2]
        self.user, self.number = own.nonzero(as_tuple=True)
        self.rows = interests[own]
        roundings = 2 * dim + 16  # of a sum of d products in any order, and of `inner_products`, with some to spare
        self.error = roundings * UNIT * self.rows.norm(dim=1) * catalogue.longest
        self.bound = interests.new_full((self.users,), LOWEST)
        self.best: Hits | None = None
        self.pending: list[Hits] = []
        self.hidden = None if seen is None else self._rows_of(seen)

    def run(self) -> Hits:
        """Pass over the catalogue; hits in no particular order, n of a user at most."""
        device = self.rows.device.type
        block = max(CHUNK, SCORES_AT_ONCE.get(device, 2**26) // max(1, len(self.rows)) // CHUNK * CHUNK)
        buffer = self.rows.new_empty(len(self.rows) * block)
        starts = range(FIRST_ITEM, len(self.catalogue), block)
        hidden = self._hidden_by_block(starts)
        renew = 1
        for number, start in enumerate(starts):
            size = min(block, len(self.catalogue) - start)
            chunk = CHUNK if number else FIRST_CHUNK
            self._take(self._products(buffer, start, size, chunk, next(hidden)), start)
            # the bound is renewed after 1, 2, 4, 8, ... blocks: between two of these about n items of a user pass it
            if number + 1 == renew or sum(map(len, self.pending)) > SCORES_AT_ONCE["cpu"]:
                self._rank()
                renew = 2 * (number + 1)
        self._rank()
        assert self.best is not None
        return self.best

    def _products(self, buffer: Tensor, start: int, size: int, chunk: int, hidden: Pairs | None) -> Tensor:
        """(R, chunk, C) about v . e, of item start + k * C + c at (k, c); -inf where it is not wanted."""
        width = -(-size // chunk) * chunk
        scores = buffer[: len(self.rows) * width].view(len(self.rows), width)
        torch.mm(self.rows, self.catalogue.vectors[start : start + size].T, out=scores[:, :size])
        scores[:, size:] = float("-inf")
        if self.allowed is not None:
            scores[:, :size].masked_fill_(~self.allowed[start : start + size], float("-inf"))
        if hidden is not None:
            scores[hidden[0], hidden[1] - start] = float("-inf")
        return scores.view(len(self.rows), chunk, width // chunk)

    def _take(self, scores: Tensor, start: int) -> None:
        """Score the items of a block that may be among the best."""
        chunks = scores.amax(1)  # (R, C)
        if self.best is None:
            self._first_bound(chunks, scores.flatten(1))
        low = (self.bound[self.user] - self.error).clamp(min=LOWEST)
        row, chunk = (chunks >= low.unsqueeze(1)).nonzero(as_tuple=True)
        for some_rows, some_chunks in zip(row.split(2**16), chunk.split(2**16), strict=True):
            found, place = (scores[some_rows, :, some_chunks] >= low[some_rows].unsqueeze(1)).nonzero(as_tuple=True)
            rows, items = some_rows[found], start + place * scores.shape[2] + some_chunks[found]
            exact = [
                inner_products(self.rows[r], self.catalogue.vectors[i])
                for r, i in zip(*(each.split(_at_once(self.rows.shape[1])) for each in (rows, items)), strict=True)
            ]
            self.pending.append(Hits(self.user[rows], items, torch.cat(exact), self.number[rows]))

    def _first_bound(self, chunks: Tensor, scores: Tensor) -> None:
        """Find a score that n items of the user reach: the n-th best chunk's, or item's where there are few chunks."""
        pool = chunks if chunks.shape[1] >= 2 * self.n else scores
        if pool.shape[1] < self.n:
            return
        user = self.user.unsqueeze(1).expand_as(pool)
        of_users = pool.new_full((self.users, pool.shape[1]), float("-inf")).scatter_reduce(0, user, pool, "amax")
        error = self.error.new_zeros(self.users).scatter_reduce(0, self.user, self.error, "amax")
        self.bound = of_users.topk(self.n, dim=1).values[:, -1] - error

    def _rank(self) -> None:
        """Keep the n best of each user, and the score of the n-th."""
        if not self.pending and self.best is not None:
            return
        hits = self.best
        for more in self.pending or [self._nothing()]:
            hits = more if hits is None else hits + more
        assert hits is not None
        self.pending = []
        hits, rank = hits.best_of_items().ranked(self.users)
        self.best = hits[rank < self.n]
        last = hits[rank == self.n - 1]
        self.bound[last.user] = last.score

    def _nothing(self) -> Hits:
        nobody = self.user[:0]
        return Hits(nobody, nobody, self.rows.new_zeros(0), nobody)

    def _rows_of(self, seen: Pairs) -> Pairs:
        """Say of (user, item) pairs which rows of the search they are, by item."""
        user, item = seen
        kept = item >= FIRST_ITEM
        user, item = user[kept], item[kept]
        own = torch.bincount(self.user, minlength=self.users)
        first = own.cumsum(0) - own
        sizes = own[user]
        place = torch.arange(int(sizes.sum()), device=user.device) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        row, item = first[user].repeat_interleave(sizes) + place, item.repeat_interleave(sizes)
        order = item.argsort()
        return row[order], item[order]

    def _hidden_by_block(self, starts: range) -> Iterator[Pairs | None]:
        """Yield the pairs to hide in each block."""
        if self.hidden is None:
            yield from (None for _ in starts)
            return
        row, item = self.hidden
        edges = torch.tensor([*starts, len(self.catalogue)], device=item.device)
        places = torch.searchsorted(item, edges).tolist()
        for first, last in pairwise(places):
            yield (row[first:last], item[first:last]) if last > first else None


def _at_once(numbers: int) -> int:
    return max(1, EXACT_AT_ONCE // max(1, numbers))

"""The rules that lists obey, and lists that obey them: which items are allowed, caps, and how places are given.

    users -> candidates (of the best match, or of each interest) -> mind_core.diversity -> a list of each shelf

Axes: B users, K interests, M candidates of each, V items. What a user gets does not depend on the users beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mind_core import diversity
from mind_core.diversity import NO_CATEGORY, Cap, Policy
from mind_core.hits import TopList
from mind_core.inference import (
    TILE_USERS,
    MINDRetriever,
    Remembered,
    Retriever,
    recommend_shelves,
    remembered,
    search_shelves,
)
from mind_core.sequences import Sequences, full_histories
from mind_core.shelves import Shelf, history_pairs, own_pairs
from mind_core.special_rows import FIRST_ITEM

CANDIDATES = 4  # of each interest, times the places of a list
FEWEST = 64  # candidates of an interest
DEEPER = 8  # times as many, where caps leave a list short
CANDIDATES_AT_ONCE = 2**24  # of all users and interests that are looked at together


@dataclass(frozen=True)
class ListRules:
    """What a list may hold. Without any rule: the best match.

    allowed : (V,) bool, the items that may stand in a list; None: all.
    policy : how places are given.
    weight : lambda of `greedy`, in units of the score.
    category : (V,) int64, what `greedy` tells apart; NO_CATEGORY where an item has none.
    places : kept for each interest by `quota`.
    """

    allowed: Tensor | None = None
    policy: Policy = "best"
    weight: float = 0.0
    category: Tensor | None = None
    places: int = 0
    caps: tuple[Cap, ...] = ()

    def __post_init__(self) -> None:
        if self.policy == "greedy" and self.category is None:
            raise ValueError("category: must be given with policy greedy")

    @property
    def scores_decide(self) -> bool:
        """Whether a list is simply the highest scores of the items that are allowed."""
        return not self.caps and (self.policy == "best" or (self.policy == "greedy" and self.weight == 0))

    @cached_property
    def longest(self) -> float:
        """How long a list can be, as far as the caps go."""
        return min((self._room(cap) for cap in self.caps), default=float("inf"))

    def _room(self, cap: Cap) -> int:
        """Count the items that fit under a cap: of each category `limit` at most."""
        kinds = cap.category[FIRST_ITEM:] if self.allowed is None else cap.category[self.allowed]
        _, sizes = kinds[kinds != NO_CATEGORY].unique(return_counts=True)
        return int(sizes.clamp(max=cap.limit).sum() + (kinds == NO_CATEGORY).sum())

    def within(self, allowed: Tensor) -> ListRules:
        """Return the same rules for fewer items: those that are in `allowed` (V,) too."""
        return replace(self, allowed=allowed if self.allowed is None else self.allowed & allowed)

    def choose(self, candidates: TopList, n: int, interests: int) -> TopList:
        """Choose n of the candidates (B, C), which `interests` found; see `mind_core.diversity`."""
        if self.policy == "quota":
            return diversity.quota(candidates, n, interests, self.places, self.caps)
        if self.policy == "round_robin":
            return diversity.round_robin(candidates, n, interests, self.caps)
        if self.policy == "greedy":
            assert self.category is not None, "greedy has a category"
            return diversity.greedy(candidates, n, self.category, self.weight, self.caps)
        return diversity.best(candidates, n, self.caps)


NO_RULES = ListRules()


@torch.no_grad()
def ruled_shelves(
    retriever: Retriever, sequences: Sequences, users: Tensor, sizes: Mapping[Shelf, int], rules: ListRules
) -> dict[Shelf, TopList]:
    """Make a list of each shelf in `sizes` for `users` (B,), as `recommend_shelves` does, by the rules.

    Candidates are CANDIDATES times a list's places of the best match, or of each interest. A user whose list the caps
    leave short is looked at again with more of them, until the list is full or the catalogue has no more.

    Returns
    -------
    By `greedy` and `round_robin` a list stands in the order in which it was filled, otherwise by falling score. Scores
    and interests are those of the interest that found the item.
    """
    if rules.scores_decide:
        return recommend_shelves(retriever, sequences, users, sizes, rules.allowed)
    return {
        shelf: _filled(retriever, sequences, users, shelf, n, rules, max(FEWEST, CANDIDATES * n))
        for shelf, n in sizes.items()
    }


def _filled(
    retriever: Retriever, sequences: Sequences, users: Tensor, shelf: Shelf, n: int, rules: ListRules, depth: int
) -> TopList:
    """Fill the lists of `users` from so many candidates, a part of the users at a time."""
    depth = min(depth, len(retriever.item_vectors))
    together = max(1, CANDIDATES_AT_ONCE // (depth * interest_count(retriever)))
    parts = [_part(retriever, sequences, some, shelf, n, rules, depth) for some in users.split(together)]
    return TopList(*map(torch.cat, zip(*parts, strict=True)))


def _part(
    retriever: Retriever, sequences: Sequences, users: Tensor, shelf: Shelf, n: int, rules: ListRules, depth: int
) -> TopList:
    if rules.policy == "best":
        pool, interests = recommend_shelves(retriever, sequences, users, {shelf: depth}, rules.allowed)[shelf], 1
        ran_out = (pool.items == 0).any(1)
    else:
        items, scores = interest_candidates(retriever, sequences, users, shelf, depth, rules.allowed)
        pool, interests = diversity.pooled(items, scores), items.shape[1]
        ran_out = (items[:, 0] == 0).any(1)  # every interest of a user finds the same number of items
    found = rules.choose(pool, n, interests)
    short = ((found.items > 0).sum(1) < min(n, rules.longest)) & ~ran_out
    if depth < len(retriever.item_vectors) and short.any():
        more = _filled(retriever, sequences, users[short], shelf, n, rules, depth * DEEPER)
        for column, values in zip(found, more, strict=True):
            column[short] = values
    return found


@torch.no_grad()
def interest_candidates(
    retriever: Retriever, sequences: Sequences, users: Tensor, shelf: Shelf, n: int, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Search for the n best items of each interest of `users` (B,), as if every interest were a user.

    An item of the history scores what the user remembers of it on top, whichever interest finds it.

    Returns
    -------
    items, scores : (B, K, n) by falling score; 0 and -inf where there are no more, and for interests that are not the
        user's own.
    """
    together = max(1, TILE_USERS // interest_count(retriever))
    tiles = [_of_tile(retriever, sequences, tile, shelf, n, allowed) for tile in users.split(together)]
    items, scores = (torch.cat(column) for column in zip(*tiles, strict=True))
    return items, scores


def interest_count(retriever: Retriever) -> int:
    """K: how many vectors a user has at most."""
    return retriever.model.config.interests if isinstance(retriever, MINDRetriever) else 1


def _of_tile(
    retriever: Retriever, sequences: Sequences, users: Tensor, shelf: Shelf, n: int, allowed: Tensor | None
) -> tuple[Tensor, Tensor]:
    histories = full_histories(sequences, users, retriever.view)
    vectors, own = retriever.interests(histories)
    batch, count, dim = vectors.shape
    each = torch.arange(count, device=vectors.device)

    def of_each(user: Tensor) -> Tensor:
        """What is of a user is of each interest."""
        return (user.unsqueeze(1) * count + each).flatten()

    memory = remembered(retriever, histories, vectors, own)
    if memory is not None:
        item, more = (values.repeat_interleave(count) for values in (memory.item, memory.more))
        memory = Remembered(of_each(memory.user), item, more)
    row, item = history_pairs(sequences, users)
    history = own_pairs((of_each(row), item.repeat_interleave(count)), len(retriever.catalogue))
    alone = vectors.reshape(batch * count, 1, dim)
    found = search_shelves(
        retriever.catalogue, alone, own.new_ones(len(alone), 1), history, memory, {shelf: n}, allowed
    )[shelf]
    foreign = ~own.unsqueeze(2)
    items = found.items.view(batch, count, -1).masked_fill(foreign, 0)
    return items, found.scores.view(batch, count, -1).masked_fill(foreign, float("-inf"))

"""The fixed model: what training-time evaluation, `mind evaluate`, `mind recommend` and the MLflow model all call.

    histories -> interests -> scores of a tile (B, V) -> top lists of `all | again | new` items

A user is scored once; each list is a choice among the same scores (Shelf).

A user's vectors must not depend on the batch the user sits in. Matrix kernels round differently for different shapes,
so users always pass through in tiles of one fixed shape (TILE_USERS, max_history), padded where needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mind_core.embeddings import pool_all
from mind_core.features import Bags
from mind_core.model import MIND
from mind_core.repeats import TRAITS
from mind_core.sequences import Histories, Sequences, View, full_histories
from mind_core.special_rows import FIRST_ITEM

TILE_USERS = 128

Shelf = Literal["all", "again", "new"]
"""Which items may stand in a list: all of them, those of the user's whole history, or those that are not in it."""

Pairs = tuple[Tensor, Tensor]  # (row, item): row counts the users of a tile from 0


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
class Scores:
    """What the B users of a tile give to every item.

    values : (B, V).
    by_interest : (B, K, V), what each interest gives, -inf if it is not the user's own; None for a rule without any.
    """

    values: Tensor
    by_interest: Tensor | None = None

    def interest_of(self, items: Tensor) -> Tensor:
        """Find which interest scores each of `items` (B, n) highest: (B, n) int64."""
        if self.by_interest is None:
            return torch.zeros_like(items)
        index = items.unsqueeze(1).expand(-1, self.by_interest.shape[1], -1)
        return self.by_interest.gather(2, index).argmax(1)


class Scorer(Protocol):
    """Whatever can rank: a trained model, or a rule (mind_core.baselines)."""

    def score(self, sequences: Sequences, users: Tensor) -> Scores:
        """Score a tile, `users` (B,) rows of `sequences`, B <= TILE_USERS."""


class Retriever(Scorer, Protocol):
    """Interest vectors for users, one vector per item; score = best match."""

    view: View
    """What of a user's sequence it sees."""
    item_vectors: Tensor
    """(V, d), as they are scored; rows 0 (padding) and 1 (unknown) are never recommended."""

    def interests(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """(B, K, d) vectors and (B, K) bool mask of the users' own ones."""
        ...

    def memory(self, histories: Histories) -> Tensor | None:
        """(B, L) r(u, i), what the items of the history score on top; 0 where there is none. None: no memory."""
        ...


class MINDRetriever:
    """A trained MIND (or mean-pooling) model with its item vectors computed once.

    Parameters
    ----------
    behaviour_vectors : (V, d), e_i before any normalisation: what `of` computes, or as it was saved.
    """

    def __init__(self, model: MIND, behaviour_vectors: Tensor):
        self.model = model
        self.view = model.view
        self.behaviour_vectors = behaviour_vectors
        self.item_vectors = model.score_vectors(behaviour_vectors)

    @classmethod
    def of(cls, model: MIND, item_bags: Bags) -> MINDRetriever:
        """Compute the item vectors from the table, as it is now."""
        return cls(model, pool_all(model.item_table, item_bags))

    def score(self, sequences: Sequences, users: Tensor) -> Scores:
        histories = full_histories(sequences, users, self.view)
        scores = best_match(self.item_vectors, *self.interests(histories))
        if (memory := self.memory(histories)) is not None:
            assert histories.newest is not None
            row, column = histories.newest.nonzero(as_tuple=True)  # each item of a user once
            scores.values[row, histories.items[row, column]] += memory[row, column]
        return scores

    def interests(self, histories: Histories) -> tuple[Tensor, Tensor]:
        vectors, own, _ = self.route(histories)
        return vectors, own

    @torch.no_grad()
    def memory(self, histories: Histories) -> Tensor | None:
        if self.model.config.repeat == "none":
            return None
        assert histories.newest is not None
        assert histories.traits is not None
        shape, width = (TILE_USERS, self.view.max_history), histories.items.shape[1]
        parts = []
        for rows in _tiles(histories):
            behaviours = nn.functional.embedding(_padded(histories.items[rows], shape), self.behaviour_vectors)
            found = self.model.encoder.memory(behaviours, _padded(histories.traits[rows], (*shape, len(TRAITS))))
            parts.append(found[: rows.stop - rows.start, :width])
        return torch.cat(parts).masked_fill(~histories.newest, 0.0)

    @torch.no_grad()
    def route(self, histories: Histories) -> tuple[Tensor, Tensor, Tensor]:
        """Interests (B, K, d), own (B, K) and the coupling coefficients (B, K, max_history)."""
        training = self.model.training
        self.model.eval()  # a model that is being trained is looked at without its dropout
        parts = [self._tile(histories, rows) for rows in _tiles(histories)]
        self.model.train(training)
        vectors, own, weights = (torch.cat(column) for column in zip(*parts, strict=True))
        return vectors, own, weights

    def _tile(self, histories: Histories, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        size = rows.stop - rows.start
        shape = (TILE_USERS, self.view.max_history)
        items, mask = _padded(histories.items[rows], shape), _padded(histories.mask[rows], shape)
        traits = None if histories.traits is None else _padded(histories.traits[rows], (*shape, len(TRAITS)))
        profile = None
        features = len(self.model.profile_features)
        if features and histories.profile is None:  # nobody: a profile of nobody
            profile = self.behaviour_vectors.new_zeros(TILE_USERS, features * self.model.config.profile_dim)
        elif histories.profile is not None:
            index = torch.arange(rows.start * features, rows.stop * features, device=items.device)
            embedded = pool_all(self.model.profile_table, histories.profile.select(index))
            width = features * self.model.config.profile_dim
            profile = _padded(embedded.view(size, width), (TILE_USERS, width))
        behaviours = nn.functional.embedding(items, self.behaviour_vectors)
        vectors, own, weights = self.model.encoder(behaviours, mask, profile, traits=traits)
        return vectors[:size], own[:size], weights[:size]


class PopularityRetriever:
    """One constant user vector against log-counts: everybody gets the most popular items.

    counts : (V,) events per item index in the training split.
    """

    def __init__(self, counts: Tensor, max_history: int):
        self.view = View(max_history)
        self.item_vectors = torch.log1p(counts.double()).float().unsqueeze(1)

    def score(self, sequences: Sequences, users: Tensor) -> Scores:
        vectors, own = self.interests(full_histories(sequences, users, self.view))
        return best_match(self.item_vectors, vectors, own)

    def interests(self, histories: Histories) -> tuple[Tensor, Tensor]:
        ones = self.item_vectors.new_ones(len(histories), 1, 1)
        return ones, ones[:, :, 0].bool()

    def memory(self, histories: Histories) -> Tensor | None:
        return None


def _tiles(histories: Histories) -> list[slice]:
    """Cut the users into tiles; nobody is one empty tile."""
    starts = range(0, max(1, len(histories)), TILE_USERS)
    return [slice(start, min(start + TILE_USERS, len(histories))) for start in starts]


def _padded(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    if values.shape == shape:
        return values
    out = values.new_zeros(shape)
    out[: values.shape[0], : values.shape[1]] = values
    return out


def recommend(scorer: Scorer, sequences: Sequences, users: Tensor, n: int, *, exclude_seen: bool) -> TopList:
    """Find the top-n items of `users` in the full catalogue.

    Parameters
    ----------
    sequences : histories; the newest `max_history` items infer, all of them are "seen".
    users : (B,) rows of `sequences`.
    exclude_seen : whether the list is the shelf `new` or `all`.
    """
    shelf: Shelf = "new" if exclude_seen else "all"
    return recommend_shelves(scorer, sequences, users, {shelf: n})[shelf]


@torch.no_grad()
def recommend_shelves(
    scorer: Scorer, sequences: Sequences, users: Tensor, sizes: Mapping[Shelf, int], allowed: Tensor | None = None
) -> dict[Shelf, TopList]:
    """Make a list of each shelf in `sizes`, so many items long, for `users` (B,), who are scored once.

    allowed : (V,) bool, the items that may stand in a list; None: all.
    """
    tiles = [
        top_lists(scorer.score(sequences, tile), history_pairs(sequences, tile), sizes, allowed)
        for tile in users.split(TILE_USERS)
    ]
    return {shelf: TopList(*map(torch.cat, zip(*(tile[shelf] for tile in tiles), strict=True))) for shelf in sizes}


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


@torch.no_grad()
def best_match(item_vectors: Tensor, interests: Tensor, own: Tensor) -> Scores:
    """Score every item for the users of a tile: f(u, i) = max_j v_j . e_i over the user's own interests.

    Parameters
    ----------
    item_vectors : (V, d).  interests : (B, K, d).  own : (B, K) bool.
    """
    batch, count, dim = interests.shape
    tile = interests.new_zeros(max(batch, TILE_USERS), count, dim)  # one shape for every call: one rounding
    tile[:batch] = interests
    by_interest = (tile.view(-1, dim) @ item_vectors.T).view(len(tile), count, len(item_vectors))[:batch]  # (B, K, V)
    if count > 1:
        by_interest = by_interest.masked_fill_(~own.unsqueeze(-1), float("-inf"))
    return Scores(by_interest.amax(1), by_interest)


def search(item_vectors: Tensor, interests: Tensor, own: Tensor, n: int, seen: Pairs | None = None) -> TopList:
    """Search for the maximum inner products, exactly: the n best of `best_match`.

    Parameters
    ----------
    seen : (row, item) index pairs to leave out, or None.
    """
    shelf: Shelf = "all" if seen is None else "new"
    nobody = torch.zeros(0, dtype=torch.int64, device=interests.device)
    return top_lists(best_match(item_vectors, interests, own), seen or (nobody, nobody), {shelf: n})[shelf]


@torch.no_grad()
def top_lists(
    scores: Scores, history: Pairs, sizes: Mapping[Shelf, int], allowed: Tensor | None = None
) -> dict[Shelf, TopList]:
    """Choose the best items of each shelf in `sizes` from the same scores. Padding and unknown items are in none.

    Parameters
    ----------
    scores : their values are overwritten, so that a tile's scores are held once.
    history : whose items are on the shelf `again`; `new` is the rest.
    allowed : (V,) bool, the items that may stand in a list; None: all.

    Examples
    --------
    Items 2, 3, 4 of one user, who has 4 in the history:

    >>> scores = Scores(torch.tensor([[9.0, 9.0, 1.0, 2.0, 3.0]]))
    >>> history = torch.tensor([0]), torch.tensor([4])
    >>> lists = top_lists(scores, history, {"all": 2, "again": 2, "new": 2})
    >>> {shelf: found.items.tolist() for shelf, found in lists.items()}
    {'all': [[4, 3]], 'again': [[4, 0]], 'new': [[3, 2]]}
    """
    values = scores.values
    values[:, :FIRST_ITEM] = float("-inf")
    if allowed is not None:
        values.masked_fill_(~allowed, float("-inf"))
    lists: dict[Shelf, TopList] = {}
    if "all" in sizes:
        lists["all"] = _top_list(scores, values, None, sizes["all"])
    if "again" in sizes:
        candidates = _own_items(history, *values.shape)
        theirs = values.gather(1, candidates)  # an empty place is padding's, -inf
        lists["again"] = _top_list(scores, theirs, candidates, sizes["again"])
    if "new" in sizes:  # last, as it overwrites
        values[history] = float("-inf")
        lists["new"] = _top_list(scores, values, None, sizes["new"])
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


def _top_list(scores: Scores, values: Tensor, candidates: Tensor | None, n: int) -> TopList:
    """Take the n best of `values` (B, C), of the items `candidates` (B, C), or of all items, C = V."""
    places = _top_items(values, min(n, values.shape[1]))
    top, by_score = torch.sort(values.gather(1, places), dim=1, descending=True, stable=True)
    places = places.gather(1, by_score)
    items = places if candidates is None else candidates.gather(1, places)
    interest = scores.interest_of(items)
    items = items.masked_fill(top == float("-inf"), 0)
    missing = n - items.shape[1]
    pad = nn.functional.pad
    return TopList(pad(items, (0, missing)), pad(top, (0, missing), value=float("-inf")), pad(interest, (0, missing)))


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


def merge_interests(items: Tensor, scores: Tensor, n: int) -> TopList:
    """Merge one candidate list per interest (as an ANN index returns them) into one list per user.

    De-duplicates by item **id**: an item found by several interests appears once, with its best score.

    Parameters
    ----------
    items : (B, K, M) int64; 0 or less marks an empty place.
    scores : (B, K, M); -inf for interests that are not the user's own.

    """
    batch, count, depth = items.shape
    flat_items, flat_scores = items.reshape(batch, -1), scores.reshape(batch, -1)
    flat_scores = flat_scores.masked_fill(flat_items <= 0, float("-inf"))
    interest = torch.arange(count, device=items.device).repeat_interleave(depth).expand(batch, -1)
    # by item, its best score first: two stable sorts, the less significant key first
    order = torch.sort(flat_scores, dim=1, descending=True, stable=True).indices
    order = order.gather(1, torch.sort(flat_items.gather(1, order), dim=1, stable=True).indices)
    sorted_items, sorted_scores = flat_items.gather(1, order), flat_scores.gather(1, order)
    repeated = torch.zeros_like(sorted_items, dtype=torch.bool)
    repeated[:, 1:] = sorted_items[:, 1:] == sorted_items[:, :-1]
    sorted_scores = sorted_scores.masked_fill(repeated, float("-inf"))
    top, place = torch.sort(sorted_scores, dim=1, descending=True, stable=True)
    top, place = top[:, :n], place[:, :n]
    merged = sorted_items.gather(1, place).masked_fill(top == float("-inf"), 0)
    found_by = interest.gather(1, order).gather(1, place)
    missing = n - merged.shape[1]
    pad = nn.functional.pad
    return TopList(pad(merged, (0, missing)), pad(top, (0, missing), value=float("-inf")), pad(found_by, (0, missing)))

"""The one place where requests meet the search: a list for each of a few requests, by the rules of the server.

Requests that ask for nothing but the highest scores are one pass of the model, each with room for what it excludes. An
allow list is scored item by item: it costs what it names. What a filter, or a policy beside an own list, asks for is
a search of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mind_core.inference import Retriever, remembered, with_memory
from mind_core.list_rules import NO_RULES, ListRules, ruled_shelves
from mind_core.search import score_pairs
from mind_core.sequences import Sequences, full_histories
from mind_core.shelves import Shelf


class Wanted(NamedTuple):
    """What a request asks of the search, in item indices.

    n : items.  shelf : which may stand in the list.  exclude : that may not.  only : that may; None: all.
    allowed : (V,) bool, that a filter lets in; None: without one.
    """

    n: int
    shelf: Shelf
    exclude: npt.NDArray[np.int64]
    only: npt.NDArray[np.int64] | None = None
    allowed: Tensor | None = None


class Found(NamedTuple):
    """A list, best first: items (m,) int64 indices, scores (m,) float32, interests (m,) int64; m <= n."""

    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    interests: npt.NDArray[np.int64]


def find_lists(
    retriever: Retriever, sequences: Sequences, wanted: Sequence[Wanted], rules: ListRules = NO_RULES
) -> list[Found]:
    """Find the list of each request, row u of `sequences` being the history of `wanted[u]`."""
    found: dict[int, Found] = {}
    together: dict[tuple[Shelf, int], list[int]] = {}
    for row, each in enumerate(wanted):
        if each.only is not None and rules.scores_decide:
            found[row] = _among(retriever, sequences, row, each, rules)
        elif each.allowed is not None or (not rules.scores_decide and (len(each.exclude) or each.only is not None)):
            own = rules.within(allowed_by(each, len(retriever.item_vectors)))
            found[row] = _searched(retriever, sequences, [row], wanted, {each.shelf: each.n}, own)[0]
        else:  # where scores decide, a longer list begins with the shorter one
            together.setdefault((each.shelf, 0 if rules.scores_decide else each.n), []).append(row)
    for (shelf, _), rows in together.items():
        room = max(wanted[row].n + len(wanted[row].exclude) for row in rows)
        sizes: dict[Shelf, int] = {shelf: min(len(retriever.item_vectors), room)}
        found |= dict(zip(rows, _searched(retriever, sequences, rows, wanted, sizes, rules), strict=True))
    return [found[row] for row in range(len(wanted))]


def allowed_by(wanted: Wanted, catalogue: int) -> Tensor:
    """Mark the items that a request's own filter and lists let in, (V,) bool."""
    mask = torch.ones(catalogue, dtype=torch.bool) if wanted.allowed is None else wanted.allowed.clone()
    if wanted.only is not None:
        named = torch.zeros(catalogue, dtype=torch.bool)
        named[torch.from_numpy(wanted.only)] = True
        mask &= named
    mask[torch.from_numpy(wanted.exclude)] = False
    return mask


def _searched(
    retriever: Retriever,
    sequences: Sequences,
    rows: Sequence[int],
    wanted: Sequence[Wanted],
    sizes: dict[Shelf, int],
    rules: ListRules,
) -> list[Found]:
    lists = ruled_shelves(retriever, sequences, torch.tensor(rows), sizes, rules)
    found = []
    for place, row in enumerate(rows):
        each = wanted[row]
        items, scores, interests = (column[place].numpy() for column in lists[each.shelf])
        kept = (items > 0) & ~np.isin(items, each.exclude)
        found.append(Found(items[kept][: each.n], scores[kept][: each.n], interests[kept][: each.n]))
    return found


@torch.no_grad()
def _among(retriever: Retriever, sequences: Sequences, row: int, wanted: Wanted, rules: ListRules) -> Found:
    """Score the items of an allow list alone, to the same bits as a search does."""
    assert wanted.only is not None, "an allow list"
    user = torch.tensor([row])
    histories = full_histories(sequences, user, retriever.view)
    vectors, own = retriever.interests(histories)
    mine = sequences.items[sequences.offsets[row] : sequences.offsets[row + 1]].numpy()
    items = np.setdiff1d(wanted.only, wanted.exclude)  # ascending: ties go by item index
    for mask in (wanted.allowed, rules.allowed):
        items = items if mask is None else items[mask.numpy()[items]]
    if wanted.shelf != "all":
        items = items[np.isin(items, mine, invert=wanted.shelf == "new")]
    index = torch.from_numpy(items)
    hits = score_pairs(retriever.catalogue, vectors, own, (torch.zeros_like(index), index))
    hits = with_memory(hits, remembered(retriever, histories, vectors, own), len(retriever.catalogue))
    best = hits.score.argsort(descending=True, stable=True)[: wanted.n]
    return Found(items[best.numpy()], hits.score[best].numpy(), hits.interest[best].numpy())

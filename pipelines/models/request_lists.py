"""The one place where requests meet the search: a list of candidates for each of a few requests.

Requests without an allow list are one pass of the model, each with room for what it excludes. An allow list is scored
item by item: it costs what it names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mind_core.inference import Retriever, recommend_shelves
from mind_core.sequences import Sequences, full_histories
from mind_core.shelves import Shelf


class Wanted(NamedTuple):
    """What a request asks of the search, in item indices.

    n : items.  shelf : which may stand in the list.  exclude : that may not.  only : that may; None: all.
    """

    n: int
    shelf: Shelf
    exclude: npt.NDArray[np.int64]
    only: npt.NDArray[np.int64] | None = None


class Found(NamedTuple):
    """A list, best first: items (m,) int64 indices, scores (m,) float32, interests (m,) int64; m <= n."""

    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    interests: npt.NDArray[np.int64]


def find_lists(retriever: Retriever, sequences: Sequences, wanted: Sequence[Wanted]) -> list[Found]:
    """Find the list of each request, row u of `sequences` being the history of `wanted[u]`."""
    found: dict[int, Found] = {}
    for row, each in enumerate(wanted):
        if each.only is not None:
            found[row] = _among(retriever, sequences, row, each)
    rows = [row for row in range(len(wanted)) if row not in found]
    if rows:
        catalogue = len(retriever.item_vectors)
        sizes: dict[Shelf, int] = {}
        for row in rows:
            room = min(catalogue, wanted[row].n + len(wanted[row].exclude))
            sizes[wanted[row].shelf] = max(room, sizes.get(wanted[row].shelf, 0))
        lists = recommend_shelves(retriever, sequences, torch.tensor(rows), sizes)
        for place, row in enumerate(rows):
            each = wanted[row]
            items, scores, interests = (column[place].numpy() for column in lists[each.shelf])
            kept = (items > 0) & ~np.isin(items, each.exclude)
            found[row] = Found(items[kept][: each.n], scores[kept][: each.n], interests[kept][: each.n])
    return [found[row] for row in range(len(wanted))]


@torch.no_grad()
def _among(retriever: Retriever, sequences: Sequences, row: int, wanted: Wanted) -> Found:
    """Score the items of an allow list alone."""
    assert wanted.only is not None, "an allow list"
    user = torch.tensor([row])
    histories = full_histories(sequences, user, retriever.view)
    vectors, own = retriever.interests(histories)
    mine = sequences.items[sequences.offsets[row] : sequences.offsets[row + 1]].numpy()
    items = np.setdiff1d(wanted.only, wanted.exclude)  # ascending: ties go by item index
    if wanted.shelf != "all":
        items = items[np.isin(items, mine, invert=wanted.shelf == "new")]
    index = torch.from_numpy(items)
    by_interest = (retriever.item_vectors[index] @ vectors[0].T).masked_fill(~own[0], -math.inf)  # (m, K)
    scores, interests = by_interest.max(1)
    memory = retriever.memory(histories)
    if memory is not None and histories.newest is not None:
        more = torch.zeros(len(retriever.item_vectors))
        more[histories.items[0][histories.newest[0]]] = memory[0][histories.newest[0]]
        scores = scores + more[index]
    best = scores.argsort(descending=True, stable=True)[: wanted.n]
    return Found(items[best.numpy()], scores[best].numpy(), interests[best].numpy())

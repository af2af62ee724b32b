"""The nearest items of each item, by the cosine of co-occurrence among users: what item-kNN is fitted to.

Bounded, whatever the log: a user counts with the newest distinct items only, so few that all their pairs stay below a
budget, and an item keeps its nearest neighbours. SciPy multiplies the sparse matrix in blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

Ints = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

NEIGHBOURS = 1000  # of an item
ENTRIES = 2 * 10**7  # of all items' neighbours together: 160 MB, of which every actor has its own
USER_ITEMS = 1000  # newest distinct ones of a user
PAIRS = 10**9  # of items that a user has both, over all users: about 10 s on a core
BLOCK_PAIRS = 2**24  # multiplied at a time


def nearest(
    users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], catalogue: int, most: int = NEIGHBOURS
) -> tuple[Int32s, Floats]:
    """Find each item's neighbours: cos(h, i) = |users of both| / sqrt(|users of h| * |users of i|).

    Parameters
    ----------
    users, items : (E,) of the events, a user's together, oldest first.
    catalogue : V, all items are below it.

    Returns
    -------
    neighbours, similarity : (V, N) by falling similarity, then rising item; 0 where there are fewer.

    Examples
    --------
    Item 2 is had by users 0 and 1, items 3 and 4 by one of them each:

    >>> neighbours, similarity = nearest(np.array([0, 0, 1, 1]), np.array([2, 3, 4, 2]), 5, most=2)
    >>> neighbours[2:].tolist()
    [[3, 4], [2, 0], [2, 0]]
    >>> [round(float(cosine), 3) for cosine in similarity[2]]
    [0.707, 0.707]
    """
    users, items = _distinct(users, items, catalogue)
    rows = int(users.max()) + 1 if len(users) else 0
    by_user = csr_array((np.ones(len(users), np.int32), (users, items)), shape=(rows, catalogue))
    by_item = by_user.T.tocsr()
    had_by = np.diff(by_item.indptr)
    scale = 1 / np.sqrt(np.maximum(had_by, 1))
    most = max(1, min(most, catalogue, ENTRIES // catalogue))
    neighbours, similarity = np.zeros((catalogue, most), np.int32), np.zeros((catalogue, most), np.float32)
    pairs = np.bincount(items, weights=np.bincount(users)[users], minlength=catalogue).astype(np.int64)
    for start, stop in _blocks(pairs):
        both = by_item[start:stop] @ by_user  # (block, V) numbers of users
        for item in range(start, stop):
            inside = slice(both.indptr[item - start], both.indptr[item - start + 1])
            near = both.indices[inside]
            cosine = both.data[inside] * scale[near] * scale[item]
            others = near != item
            near, cosine = near[others], cosine[others]
            if len(near) > most:  # among those as similar as the last one any is kept
                kept = np.argpartition(-cosine, most - 1)[:most]
                near, cosine = near[kept], cosine[kept]
            order = np.lexsort((near, -cosine))
            neighbours[item, : len(near)], similarity[item, : len(near)] = near[order], cosine[order]
    return neighbours, similarity


def _distinct(users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], catalogue: int) -> tuple[Ints, Ints]:
    """Keep the distinct items of each user, as many of the newest as the budget allows."""
    newest_first = (users.astype(np.int64) * catalogue + items)[::-1]
    _, first = np.unique(newest_first, return_index=True)
    first.sort()  # users from last to first, each one's items from the newest
    users, items = np.divmod(newest_first[first], catalogue)
    sizes = np.bincount(users)
    most = USER_ITEMS
    while most > 1 and (np.minimum(sizes, most) ** 2).sum() > PAIRS:
        most //= 2
    stop = np.cumsum(sizes[::-1])[::-1]  # of the place behind each user's items
    age = np.arange(len(users)) - (stop - sizes)[users]
    return users[age < most], items[age < most]


def _blocks(pairs: Ints) -> list[tuple[int, int]]:
    """Cut the items into ranges with at most BLOCK_PAIRS, or of one item."""
    bounds, held = [0], 0
    for item, number in enumerate(pairs.tolist()):
        if held and held + number > BLOCK_PAIRS:
            bounds.append(item)
            held = 0
        held += number
    return list(zip(bounds, [*bounds[1:], len(pairs)], strict=True))

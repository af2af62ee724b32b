"""The one scorer of `make bench-quality`: from the lists that a contestant wrote to metrics of each test user.

Targets, groups and metrics are those of `mind evaluate` (mind_core.metrics). A list is taken as it stands: where a
contestant's scores tie, its own order counts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mind_core.evaluation import Targets, pairs_in
from mind_core.metrics import group_metrics, user_metrics
from mind_core.sequences import Sequences
from mind_core.shelves import history_pairs

CUTOFFS = [10, 20, 50]

Floats = npt.NDArray[np.float64]


def score(
    lists: npt.NDArray[np.int32],
    new_lists: npt.NDArray[np.int32] | None,
    sequences: Sequences,
    targets: Targets,
    cutoffs: list[int] = CUTOFFS,
) -> dict[str, Floats]:
    """Compute the metrics of each user who is counted: hit_rate, recall, ndcg and mrr at each cutoff.

    Parameters
    ----------
    lists : (U, n) the items of each user of `sequences`, best first, 0 where there are no more.
    new_lists : (U, n) the same of the items outside the history. None: `lists` are these, as seen items are filtered:
        a target in the history is not asked for, and a user without any other is not counted.

    Returns
    -------
    name -> (U',) float64. Where seen items are kept, also ``again/recall@20`` and ``new/recall@20``, of the targets in
    the history and of the others, and ``shelf_new/recall@20``, of the others in `new_lists`; NaN for a user without.

    Examples
    --------
    One user has items 2 and 3, and is asked for 3 and 4; 3 stands first, 4 second of what is new:

    >>> history, asked = Sequences(torch.tensor([2, 3]), torch.tensor([0, 2])), torch.tensor([3, 4])
    >>> targets = Targets(asked, torch.tensor([0, 2]))
    >>> found = score(np.array([[3, 2]]), np.array([[5, 4]]), history, targets, [2])
    >>> [(name, found[name].tolist()) for name in ("recall@2", "again/recall@2", "new/recall@2", "shelf_new/recall@2")]
    [('recall@2', [0.5]), ('again/recall@2', [1.0]), ('new/recall@2', [0.0]), ('shelf_new/recall@2', [1.0])]
    """
    everyone = torch.arange(len(sequences))
    row, items = targets.of(everyone)
    again = pairs_in((row, items), history_pairs(sequences, everyone))
    if new_lists is None:
        row, items = row[~again], items[~again]
    counted, row = row.unique(return_inverse=True)
    ranks = _places(lists, counted, row, items)
    if new_lists is None:
        found = user_metrics(ranks, row, len(counted), cutoffs)
    else:
        shelf_ranks = torch.where(again, ranks, _places(new_lists, counted, row, items))
        found = group_metrics(ranks, shelf_ranks, again, row, len(counted), cutoffs)
    # there is no list of the history's items alone, so no metric of that shelf
    return {name: values.numpy() for name, values in found.items() if not name.startswith("shelf_again/")}


def _places(lists: npt.NDArray[np.int32], counted: Tensor, row: Tensor, items: Tensor) -> Tensor:
    """(T,) the place of each target in its user's list, from 1; one more than its length where it is not in it."""
    found = torch.from_numpy(lists)[counted][row] == items.unsqueeze(1)
    return torch.where(found.any(1), found.int().argmax(1) + 1, lists.shape[1] + 1)

"""Why an item is in a list: the interest that found it, what part of the history went there, and which behaviours most.

Axes as in mind_core.model: B users, L behaviours, K interests.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mind_core.inference import MINDRetriever
from mind_core.sequences import Histories, Sequences, full_histories

LEADING = 3


class Reasons(NamedTuple):
    """What each interest of B users is made of.

    share : (B, K) float32, the part of the behaviours that went to it; a user's own interests sum to 1, others have 0.
    places : (B, K, top) int64, the distinct behaviours that it has most of, as columns of the history; -1 where there
        are no more.
    coupling : (B, K, top) float32, w_ij of them; 0 where there are no more.
    """

    share: Tensor
    places: Tensor
    coupling: Tensor


class Routed(NamedTuple):
    """The interests of B users, and what they come from; the places of `of` count in `histories`.

    interests : (B, K, d).  own : (B, K) bool.
    """

    histories: Histories
    interests: Tensor
    own: Tensor
    of: Reasons


def reasons_of(retriever: MINDRetriever, sequences: Sequences, users: Tensor) -> Routed:
    """Route the histories of `users` (B,), and say what their interests come from."""
    histories = full_histories(sequences, users, retriever.view)
    interests, own, weights = retriever.route(histories)
    of = reasons(weights[..., : histories.items.shape[1]], histories.items, histories.mask)
    return Routed(histories, interests, own, of)


def reasons(weights: Tensor, items: Tensor, mask: Tensor, top: int = LEADING) -> Reasons:
    """Say what the interests of users come from.

    Parameters
    ----------
    weights : (B, K, L), the coupling coefficients: of each behaviour, how much went to which interest.
    items : (B, L) item indices, oldest first; an item that stands there several times is named at its newest place.
    mask : (B, L) bool, False at padding.

    Examples
    --------
    Two interests; of three behaviours the first two went to the first interest, and are the same item:

    >>> weights = torch.tensor([[[0.75, 0.75, 0.0], [0.25, 0.25, 1.0]]])
    >>> found = reasons(weights, torch.tensor([[7, 7, 9]]), torch.ones(1, 3, dtype=torch.bool), top=2)
    >>> found.share.tolist(), found.places.tolist(), found.coupling.tolist()
    ([[0.5, 0.5]], [[[1, 2], [2, 1]]], [[[0.75, 0.0], [1.0, 0.25]]])
    """
    length = weights.shape[2]
    weights = weights * mask.unsqueeze(1)
    share = weights.sum(2) / mask.sum(1, keepdim=True).clamp(min=1)
    later = torch.ones(length, length, dtype=torch.bool, device=items.device).triu(1)
    repeated = ((items.unsqueeze(2) == items.unsqueeze(1)) & later & mask.unsqueeze(1)).any(2)  # comes again, newer
    named = (mask & ~repeated).unsqueeze(1)
    ranked = weights.masked_fill(~named, -1.0)
    newest_first = ranked.flip(2)  # of equal coupling the newest comes first
    coupling, places = newest_first.sort(dim=2, descending=True, stable=True)
    coupling, places = coupling[..., :top], length - 1 - places[..., :top]
    none = coupling < 0
    return Reasons(share, places.masked_fill(none, -1), coupling.masked_fill(none, 0.0))

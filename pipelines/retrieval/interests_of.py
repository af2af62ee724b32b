"""A user's interests one by one: the vector, what of the history went there, and what it finds by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mind_core.inference import MINDRetriever
from mind_core.search import search
from mind_core.sequences import Sequences
from mind_core.special_rows import FIRST_ITEM
from mind_core.why import reasons_of
from pipelines.errors import UserError
from pipelines.models.artifact import SavedModel


@dataclass(frozen=True)
class OneInterest:
    """One interest of a user.

    number : from 0, as in lists.  vector : (d,).  share : of the history that went to it.
    because : (raw id, coupling coefficient) of the behaviours that it has most of; None for an item that the model
        does not know.
    finds : raw ids of the items that match it best, items of the history among them.
    """

    number: int
    vector: npt.NDArray[np.float32]
    share: float
    because: list[tuple[Any, float]]
    finds: list[Any]


def interests_of(model: SavedModel, sequences: Sequences, n: int = 10) -> list[list[OneInterest]]:
    """List the interests of each user of `sequences`, with the n items that each finds.

    Raises
    ------
    UserError
        For a model without interests.
    """
    retriever = model.retriever
    if not isinstance(retriever, MINDRetriever):
        raise UserError(f"{model.card.name}: encoder {model.card.config.encoder} has no interests")
    users = torch.arange(len(sequences))
    histories, vectors, own, reasons = reasons_of(retriever, sequences, users)
    ids = model.item_ids
    found: list[list[OneInterest]] = []
    for user in users.tolist():
        numbers = own[user].nonzero().squeeze(1).tolist()
        alone = vectors[user, numbers].unsqueeze(1)  # (K', 1, d): each as if it were a user
        lists = search(retriever.catalogue, alone, torch.ones(len(numbers), 1, dtype=torch.bool), n).items
        found.append(
            [
                OneInterest(
                    number,
                    vectors[user, number].numpy(),
                    float(reasons.share[user, number]),
                    _because(ids, histories.items[user], reasons.places[user, number], reasons.coupling[user, number]),
                    [ids[item - FIRST_ITEM].as_py() for item in items.tolist() if item >= FIRST_ITEM],
                )
                for number, items in zip(numbers, lists, strict=True)
            ]
        )
    return found


def _because(ids: Any, items: torch.Tensor, places: torch.Tensor, coupling: torch.Tensor) -> list[tuple[Any, float]]:
    """Name the behaviours at some places of a history."""
    told: list[tuple[Any, float]] = []
    for place, weight in zip(places.tolist(), coupling.tolist(), strict=True):
        if place >= 0:
            item = int(items[place])
            told.append((ids[item - FIRST_ITEM].as_py() if item >= FIRST_ITEM else None, weight))
    return told

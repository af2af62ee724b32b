"""Why an item is in a list: the interest that found it, its share of the history, and what went there most."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from mind_core.inference import MINDRetriever
from mind_core.sequences import Sequences
from mind_core.special_rows import FIRST_ITEM
from mind_core.why import Reasons, reasons_of
from pipelines.models.artifact import SavedModel

COLUMNS = ("share", "because", "coupling", "remembered")


class Explained(NamedTuple):
    """What the interests of B users come from.

    of : by interest.  items : (B, L) of the history that `of.places` counts in.
    memory : (B, L) what each item of the history scores on top, or None.
    """

    of: Reasons
    items: Tensor
    memory: Tensor | None


def explained(model: SavedModel, sequences: Sequences) -> Explained | None:
    """Say what the interests of all users of `sequences` come from; None for a model without any."""
    retriever = model.retriever
    if not isinstance(retriever, MINDRetriever):
        return None
    histories, vectors, own, found = reasons_of(retriever, sequences, torch.arange(len(sequences)))
    return Explained(found, histories.items, retriever.memory(histories, vectors, own))


def with_reasons(model: SavedModel, sequences: Sequences, lists: pa.Table) -> pa.Table:
    """Add columns that say why each item is in its list.

    Returns
    -------
    The table with share (of the history, that went to the interest), because (raw ids of the three behaviours with the
    highest coupling to it), coupling (theirs), remembered (what the score has on top as the user had the item before).
    Empty for a model without interests.
    """
    found = explained(model, sequences)
    if found is None:
        ids = pa.nulls(len(lists), pa.list_(model.item_ids.type))
        kinds = (pa.float32(), None, pa.list_(pa.float32()), pa.float32())
        empty = [ids if kind is None else pa.nulls(len(lists), kind) for kind in kinds]
        return _appended(lists, empty)
    user, interest = (torch.from_numpy(lists[name].to_numpy().astype(np.int64)) for name in ("user", "interest"))
    places, coupling = found.of.places[user, interest], found.of.coupling[user, interest]
    there = places >= 0
    items = found.items[user].gather(1, places.clamp(min=0))[there]
    offsets = pa.array(np.concatenate([[0], there.sum(1).cumsum(0).numpy()]).astype(np.int32))
    known = pa.array((items >= FIRST_ITEM).numpy())
    ids = model.item_ids.take(pa.array((items - FIRST_ITEM).clamp(min=0).numpy()))
    ids = pc.if_else(known, ids, pa.scalar(None, ids.type))  # an item that the model does not know
    columns = [
        pa.array(found.of.share[user, interest].numpy()),
        pa.ListArray.from_arrays(offsets, ids),
        pa.ListArray.from_arrays(offsets, pa.array(coupling[there].numpy())),
        pa.array(_remembered(model, found, lists, user).numpy()),
    ]
    return _appended(lists, columns)


def _remembered(model: SavedModel, found: Explained, lists: pa.Table, user: Tensor) -> Tensor:
    """(rows,) what each row's item scores on top; 0 without a memory, and for an item that is not in the window."""
    if found.memory is None:
        return torch.zeros(len(lists))
    item = torch.from_numpy(np.asarray(model.encode_items(lists["id"].combine_chunks()), np.int64))
    same = found.items[user] == item.unsqueeze(1)
    return (found.memory[user] * same).sum(1)


def _appended(lists: pa.Table, columns: list[Any]) -> pa.Table:
    for name, column in zip(COLUMNS, columns, strict=True):
        lists = lists.append_column(name, column)
    return lists

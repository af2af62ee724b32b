"""Where a user's items come again: what the distinct items of a history are, how often, how lately and how regularly.

A history that holds each item once, at its newest event, reaches back further than the newest L events do: 200 distinct
items of a household that shops every day are half a year. What that drops is kept as traits of the item.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = 2**31 - 1  # events until an item's next one where there is none
MEMORIES = (32.0, 256.0)  # events in which an event of the past loses all but 1 / e of its weight in a recent count
TRAITS = ("log count", "log age", "log share", "again", "log overdue", "recent 32", "recent 256")  # of `traits_of`


@dataclass(frozen=True)
class Repeats:
    """Of each event, where the other events of its user and item are.

    until : (total,) int32, events until the item's next one, NEVER after its last.
    count : (total,) int32, of the item's events up to this one, itself included.
    since : (total,) int32, events since the item's first one, 0 at the first.
    recent : (total, len(MEMORIES)) float32, the same count, an event a events ago counting as exp(-a / memory).
    """

    until: Tensor
    count: Tensor
    since: Tensor
    recent: Tensor


def find_repeats(items: Tensor, offsets: Tensor) -> Repeats:
    """Find each event's neighbours of the same user and item.

    Parameters
    ----------
    items : (total,) integer, flat.  offsets : (n + 1,) int64; user u owns items[offsets[u]:offsets[u + 1]].

    Examples
    --------
    >>> found = find_repeats(torch.tensor([7, 8, 7, 7, 7]), torch.tensor([0, 4, 5]))
    >>> found.count.tolist(), found.since.tolist(), found.until[:3].tolist()
    ([1, 1, 2, 3, 1], [0, 0, 2, 3, 0], [2, 2147483647, 1])
    """
    total, device = len(items), items.device
    user = torch.repeat_interleave(torch.arange(len(offsets) - 1, device=device), offsets.diff())
    vocabulary = int(items.max()) + 1 if total else 1
    key = user * vocabulary + items
    order = key.argsort(stable=True)  # the events of a user and item stand together, oldest first
    place = torch.arange(total, device=device)
    starts = torch.ones(total, dtype=torch.bool, device=device)
    starts[1:] = key[order[1:]] != key[order[:-1]]
    begin = torch.where(starts, place, 0).cummax(0).values if total else place
    until = torch.full((total,), NEVER, dtype=torch.int32, device=device)
    goes_on = (~starts[1:]).nonzero().squeeze(1)
    until[order[goes_on]] = (order[goes_on + 1] - order[goes_on]).int()
    count, since = torch.empty_like(until), torch.empty_like(until)
    count[order] = (place - begin + 1).int()
    since[order] = (order - order[begin]).int()
    return Repeats(until, count, since, _recent(order, place - begin))


def _recent(order: Tensor, earlier: Tensor) -> Tensor:
    """Decayed counts: 1 + exp(-gap / memory) times the decayed count at the item's event before.

    order : (total,) the events, those of a user and item together, oldest first.  earlier : (total,) how many of a
    user's events of the item stand before each in that order.
    """
    found = torch.ones(len(order), len(MEMORIES), device=order.device)
    memories = torch.tensor(MEMORIES, device=order.device)
    by_number = earlier.argsort(stable=True)  # all first events, then all second ones, ...
    sizes = torch.bincount(earlier)
    for own in by_number[int(sizes[0]) if len(sizes) else 0 :].split(sizes[1:].tolist()):
        gap = (order[own] - order[own - 1]).unsqueeze(1)
        found[own] += found[own - 1] * torch.exp(-gap / memories)
    recent = torch.empty_like(found)
    recent[order] = found
    return recent


def traits_of(repeats: Repeats, index: Tensor, age: Tensor, length: Tensor) -> Tensor:
    """Describe the newest events of some items by what came before them.

    Parameters
    ----------
    index : (B, L) int64, places of the events.
    age : (B, L) int64, events of the user since then; 0 is the newest.
    length : (B, 1) int64, events of the user.

    Returns
    -------
    (B, L, len(TRAITS)) float32: log n; log(1 + age); log(n / length); whether n > 1; where it is,
    log((1 + age) / (usual gap)), the usual gap being (events from the first to the newest) / (n - 1); and for each of
    MEMORIES log(1 + n'), n' being the count in which an event a events ago counts as exp(-a / memory).
    """
    count = repeats.count[index].float()
    again = count > 1
    gap = repeats.since[index] / (count - 1).clamp(min=1)
    age = 1.0 + age
    fading = torch.exp(-(age.unsqueeze(-1) - 1) / torch.tensor(MEMORIES, device=age.device))
    recent = torch.log1p(repeats.recent[index] * fading)
    overdue = torch.where(again, (age / gap.clamp(min=1)).log(), 0.0)
    log_share = (count / length.clamp(min=1)).log()
    return torch.cat([torch.stack([count.log(), age.log(), log_share, again.float(), overdue], -1), recent], -1)

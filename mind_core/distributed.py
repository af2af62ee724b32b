"""Data parallelism for embedding rows: ranks exchange (row, gradient) of touched rows, never the table.

Bytes per step follow the batch, not the vocabulary. A table is either replicated (`exchange_rows`) or sharded, row r
lying on rank r % W (`fetch_rows`, `send_to_owners`). Contributions to a row are summed in the order of the ranks either
way: replicas stay bit-identical without ever being compared, and a sharded table holds the bits of a replicated one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of ranks, 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def from_first_rank(values: Tensor) -> Tensor:
    """Return what rank 0 has, on every rank; the others pass a tensor of its shape, which is overwritten."""
    if world_size() > 1:
        dist.broadcast(values, src=0)
    return values


def exchange_rows(rows: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Average row gradients over the ranks; a row that a rank did not touch counts as zero there.

    Parameters
    ----------
    rows : (R,) int64, distinct; R may differ between ranks and be 0.
    grad : (R, d).

    Returns
    -------
    rows : (R',) int64, the union over ranks, sorted.
    grad : (R', d), the sum over ranks divided by their number.
    """
    ranks = world_size()
    if ranks == 1:
        return rows, grad
    counts = torch.zeros(ranks, dtype=torch.int64, device=rows.device)
    dist.all_gather_single(counts, torch.tensor([len(rows)], device=rows.device))
    longest = int(counts.max())
    all_rows = _all_gather_padded(rows, longest, ranks)
    all_grads = _all_gather_padded(grad, longest, ranks)
    sizes = counts.tolist()
    return _mean_by_row(
        [rows[:n] for rows, n in zip(all_rows, sizes, strict=True)],
        [grads[:n] for grads, n in zip(all_grads, sizes, strict=True)],
    )


def _mean_by_row(rows: list[Tensor], grads: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Distinct rows, sorted, and the mean over ranks of each, from every rank's own: (R,) rows with their (R, d)."""
    union, index = torch.cat(rows).unique(return_inverse=True)
    total = grads[0].new_zeros(len(union), grads[0].shape[1])
    for part, values in zip(index.split([len(own) for own in rows]), grads, strict=True):
        # one rank at a time: its rows are distinct, so the sum's order is fixed even where index_add_ is atomic (GPU)
        total.index_add_(0, part, values)
    return union, total.div_(len(rows))


def _all_gather_padded(values: Tensor, length: int, ranks: int) -> Tensor:
    padded = values.new_zeros(length, *values.shape[1:])
    padded[: len(values)] = values
    gathered = values.new_empty(ranks * length, *values.shape[1:])
    dist.all_gather_single(gathered, padded)
    return gathered.view(ranks, length, *values.shape[1:])


@dataclass(frozen=True)
class Route:
    """The way of a rank's rows to their owners.

    order : (R,) the rows sorted by owner.  sent, received : rows to and from each rank.
    places : (sum of received,) where the rows that the others asked for lie here, rank by rank.
    """

    order: Tensor
    sent: list[int]
    received: list[int]
    places: Tensor


def route_rows(rows: Tensor) -> Route:
    """Tell the owners of `rows` (R,), distinct, which of theirs are meant. All ranks must call it; R may be 0."""
    ranks = world_size()
    owner = rows % ranks
    order = owner.argsort(stable=True)
    sent = owner.bincount(minlength=ranks)
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent)
    sizes = sent.tolist(), received.tolist()
    places = rows.new_empty(sum(sizes[1]))
    dist.all_to_all_single(places, rows[order] // ranks, sizes[1], sizes[0])
    return Route(order, *sizes, places)


def fetch_rows(weight: Tensor, route: Route) -> Tensor:
    """Fetch the routed rows (R, d) from the ranks that own them; `weight` (rows here, d) is what this rank owns."""
    values = weight.new_empty(len(route.order), weight.shape[1])
    dist.all_to_all_single(values, weight.index_select(0, route.places), route.sent, route.received)
    return torch.empty_like(values).index_copy_(0, route.order, values)


def send_to_owners(rows: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Do as `exchange_rows` for a sharded table: each rank gets the rows that it owns, by their places there."""
    route = route_rows(rows)
    values = grad.new_empty(len(route.places), grad.shape[1])
    dist.all_to_all_single(values, grad.index_select(0, route.order), route.received, route.sent)
    return _mean_by_row(list(route.places.split(route.received)), list(values.split(route.received)))


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum over all ranks, on every rank; with a single process `values` itself is returned."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values

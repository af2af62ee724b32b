"""Data parallelism for embedding rows: ranks exchange (row, gradient) of touched rows, never the table.

Bytes per step follow the batch, not the vocabulary. Every rank merges the same contributions in the same order, so
replicas stay bit-identical without ever being compared.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks, 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


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
    dist.all_gather_into_tensor(counts, torch.tensor([len(rows)], device=rows.device))
    longest = int(counts.max())
    all_rows = _all_gather_padded(rows, longest, ranks)
    all_grads = _all_gather_padded(grad, longest, ranks)
    own_rows = [r[:n] for r, n in zip(all_rows, counts.tolist(), strict=True)]
    union, index = torch.cat(own_rows).unique(return_inverse=True)
    total = grad.new_zeros(len(union), grad.shape[1])
    for part, values in zip(index.split([len(r) for r in own_rows]), all_grads, strict=True):
        # one rank at a time: its rows are distinct, so the sum's order is fixed even where index_add_ is atomic (GPU)
        total.index_add_(0, part, values[: len(part)])
    return union, total / ranks


def _all_gather_padded(values: Tensor, length: int, ranks: int) -> Tensor:
    padded = values.new_zeros(length, *values.shape[1:])
    padded[: len(values)] = values
    gathered = values.new_empty(ranks * length, *values.shape[1:])
    dist.all_gather_into_tensor(gathered, padded)
    return gathered.view(ranks, length, *values.shape[1:])


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum over all ranks, on every rank; `values` itself with a single process."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values

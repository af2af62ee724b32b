"""Embedding tables read and updated by distinct rows: the cost of a step follows its batch, not the vocabulary.

A training step gathers each distinct row once into a small dense block (a leaf of the autograd graph), computes on the
block, and hands the block's gradient to a row-wise optimiser. The big table itself never takes part in autograd.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mind_core.features import Bags


class EmbeddingTable(nn.Module):
    """(rows, dim) embedding rows; row 0 is padding: zeros, never trained.

    `unknown_rows` start at zero too: until rare values have trained it, an unknown value contributes nothing.
    """

    def __init__(self, rows: int, dim: int, std: float, generator: torch.Generator, unknown_rows: list[int]):
        super().__init__()
        weight = torch.empty(rows, dim).normal_(0.0, std, generator=generator)
        weight[[0, *unknown_rows]] = 0.0
        self.weight = nn.Parameter(weight, requires_grad=False)  # autograd sees blocks of it, DDP leaves it alone


@dataclass(frozen=True)
class RowBlock:
    """A step's distinct table rows: `rows` (R,) sorted, `values` (R, dim) a leaf that collects their gradient."""

    rows: Tensor
    values: Tensor


@dataclass(frozen=True)
class Gathered:
    """Bags whose rows were gathered: `index` points into block.values."""

    block: RowBlock
    index: Tensor
    bags: Bags

    def pooled(self, values: Tensor) -> Tensor:
        """(len(bags), dim) weighted sums of the block's `values`; differentiable in them."""
        return pool(values, self.index, self.bags)


def gather(table: EmbeddingTable, bags: Bags) -> Gathered:
    """Copy the distinct rows of `bags` out of the table."""
    rows, index = bags.rows.unique(return_inverse=True)
    return Gathered(RowBlock(rows, table.weight.index_select(0, rows).requires_grad_()), index, bags)


def pool(values: Tensor, index: Tensor, bags: Bags) -> Tensor:
    """Weighted sum of values[index] within each bag; an empty bag gives zeros.

    values : (R, dim).  index : (nnz,) into values.  Returns (len(bags), dim).
    """
    return nn.functional.embedding_bag(
        index, values, bags.offsets[:-1], mode="sum", per_sample_weights=bags.weights.to(values.dtype)
    )


def pool_all(table: EmbeddingTable, bags: Bags) -> Tensor:
    """(len(bags), dim) pooled straight from the table: for inference, where nothing is differentiated."""
    with torch.no_grad():
        return pool(table.weight, bags.rows, bags)

"""Embedding tables read and updated by distinct rows: the cost of a step follows its batch, not the vocabulary.

A training step gathers each distinct row once into a small dense block (a leaf of the autograd graph), computes on the
block, and hands the block's gradient to a row-wise optimiser. The big table itself never takes part in autograd.

A table may be sharded: each rank then holds every W-th row, and rows are fetched from the ranks that own them. What is
computed is the same, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mind_core.distributed import fetch_rows, route_rows
from mind_core.features import Bags
from mind_core.special_rows import PADDING

INIT_ROWS = 2**16  # drawn at a time, so that a shard's start needs no room for the whole table


@dataclass(frozen=True)
class Shard:
    """Which rows a rank owns: row r lies on rank r % ranks, at place r // ranks. One rank owns all."""

    rank: int = 0
    ranks: int = 1

    def place(self, row: int) -> slice:
        """Find the place of `row` here; empty if another rank owns it."""
        place = row // self.ranks
        return slice(place, place + (row % self.ranks == self.rank))


WHOLE = Shard()


class EmbeddingTable(nn.Module):
    """(rows, dim) embedding rows; row 0 is padding: zeros, never trained.

    `unknown_rows` start at zero too: until rare values have trained it, an unknown value contributes nothing.
    `weight` holds the rows of `shard`.
    """

    def __init__(
        self,
        rows: int,
        dim: int,
        std: float,
        generator: torch.Generator,
        unknown_rows: list[int],
        shard: Shard = WHOLE,
    ):
        super().__init__()
        self.shard = shard
        weight = torch.empty(len(range(shard.rank, rows, shard.ranks)), dim)
        done = 0
        for start in range(0, rows, INIT_ROWS):  # every rank draws all and keeps its own
            size = min(INIT_ROWS, rows - start)
            drawn = torch.empty(size, dim).normal_(0.0, std, generator=generator)
            own = drawn[(shard.rank - start) % shard.ranks :: shard.ranks]
            weight[done : done + len(own)] = own
            done += len(own)
        for row in (PADDING, *unknown_rows):
            weight[shard.place(row)] = 0.0
        self.weight = nn.Parameter(weight, requires_grad=False)  # autograd sees blocks of it, DDP leaves it alone

    def fetch(self, rows: Tensor) -> Tensor:
        """Copy `rows` (R,), distinct.  (R, dim).  On a sharded table all ranks must call it, each with its own."""
        if self.shard.ranks == 1:
            return self.weight.index_select(0, rows)
        return fetch_rows(self.weight, route_rows(rows))


@dataclass(frozen=True)
class RowBlock:
    """A step's distinct table rows: `rows` (R,) sorted, `values` (R, dim) a leaf that collects their gradient."""

    rows: Tensor
    values: Tensor


@dataclass(frozen=True)
class Gathered:
    """Bags whose rows were gathered: `index` points into block.values. Without bags, each row is one by itself."""

    block: RowBlock
    index: Tensor | None = None
    bags: Bags | None = None

    def pooled(self, values: Tensor) -> Tensor:
        """Sum the block's `values`, weighted, (number of bags, dim); differentiable in them."""
        if self.index is None or self.bags is None:
            return values
        return pool(values, self.index, self.bags)


def gather(table: EmbeddingTable, bags: Bags) -> Gathered:
    """Copy the distinct rows of `bags` out of the table."""
    rows, index = bags.rows.unique(return_inverse=True)
    return Gathered(RowBlock(rows, table.fetch(rows).requires_grad_()), index, bags)


def gather_rows(table: EmbeddingTable, rows: Tensor) -> Gathered:
    """Copy `rows` (R,), distinct and sorted, each a bag of its own."""
    return Gathered(RowBlock(rows, table.fetch(rows).requires_grad_()))


def pool(values: Tensor, index: Tensor, bags: Bags) -> Tensor:
    """Sum values[index], weighted, within each bag; an empty bag gives zeros.

    values : (R, dim).  index : (nnz,) into values.  Returns (len(bags), dim).
    """
    return nn.functional.embedding_bag(
        index, values, bags.offsets[:-1], mode="sum", per_sample_weights=bags.weights.to(values.dtype)
    )


def pool_all(table: EmbeddingTable, bags: Bags) -> Tensor:
    """Pool straight from the table, (len(bags), dim): for inference, where nothing is differentiated.

    On a sharded table all ranks must call it, with the same bags, and each gets the whole.
    """
    with torch.no_grad():
        if table.shard.ranks == 1:
            return pool(table.weight, bags.rows, bags)
        parts = []
        for index in torch.arange(len(bags), device=bags.rows.device).split(INIT_ROWS):
            gathered = gather(table, bags.select(index))
            parts.append(gathered.pooled(gathered.block.values))
        return torch.cat(parts)

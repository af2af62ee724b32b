"""Where the item table may begin: items that the same users had lie together, before the first step is made.

    X = D_u^-1/2 B D_i^-1/2,   B_ui = 1 where user u had item i,   D the numbers of pairs of a user and of an item
    X ~ U S V^T,   e_i at the start: row i of V S

That is a truncated SVD, found by subspace iteration with X^T X. X is never held: each pass reads the histories, a few
users at a time, so the cost is a handful of passes, and the memory some numbers per item. The largest singular value is
known to be 1, and its vector sqrt(D_i): the iteration looks for the others, at right angles to it.

Where some events are no labels (`Sequences.past`), these alone are looked at: a table that has seen the labels of the
training makes every label look likely, and what was learned of a user's own items is then worth less on new data.

Source: Cremonesi et al. 2010 (PureSVD); Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.3; Greenacre 1984, on
the trivial axis of correspondence analysis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mind_core.distributed import from_first_rank, sum_over_ranks
from mind_core.embeddings import EmbeddingTable
from mind_core.sequences import Sequences
from mind_core.special_rows import FIRST_ITEM

PASSES = 6  # of subspace iteration; more of them change no figure that we saw
SPARE = 16  # directions beyond d, which let the d best settle sooner
EVENTS_AT_ONCE = 2**20
SURE = 1e-3  # of float32: what is smaller, of 1, may be rounding

Histories = Callable[[], Iterable[Sequences]]
"""Gives all users' histories, in portions, as often as it is called."""


class _Pairs(NamedTuple):
    """The pairs of some users: `items` (P,) by user, who begin at `starts` (B,); the same by item.

    weight : (B,) D_u^-1/2.  of_item, users, item_starts : the distinct items, and the user of each pair by item.
    """

    items: Tensor
    starts: Tensor
    weight: Tensor
    of_item: Tensor
    users: Tensor
    item_starts: Tensor


def item_factors(
    histories: Histories,
    items: int,
    dim: int,
    generator: torch.Generator,
    exchange: torch.device | str = "cpu",
) -> Tensor:
    """Find where each item begins.

    Parameters
    ----------
    histories : of this rank's share of the users, where there are several ranks, who must all call it.
    items : V.  dim : d.
    generator : of the random start, on the CPU.
    exchange : the device whose tensors the ranks can add up.

    Returns
    -------
    (V, d) float32, rows of norm 1; zeros for an item that nobody had.

    Examples
    --------
    Two tastes lie at right angles:

    >>> users = Sequences(torch.tensor([2, 3, 2, 3, 4, 5, 4, 5]), torch.tensor([0, 2, 4, 6, 8]))
    >>> found = item_factors(lambda: [users], 6, 4, torch.Generator().manual_seed(0))
    >>> (found @ found.T)[2:, 2:].round().int().tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    """
    count = torch.zeros(items)
    for pairs in _portions(histories, items):
        count[pairs.of_item] += pairs.item_starts.diff()
    count = sum_over_ranks(count.to(exchange)).cpu()
    had = count > 0
    if not had.any():
        return torch.zeros(items, dim)
    weight = torch.where(had, count.clamp(min=1).rsqrt(), 0.0)  # D_i^-1/2
    alike = functional.normalize(count.sqrt(), dim=0)

    def squared(basis: Tensor) -> Tensor:
        image = sum_over_ranks(_squared(histories, basis, weight).to(exchange)).cpu()
        return image.addr_(alike, alike @ image, alpha=-1)  # X^T X leaves `alike` as it is: what is left stays apart

    others = _others(squared, torch.randn(items, min(dim + SPARE, int(had.sum()) - 1), generator=generator), dim - 1)
    factors = torch.cat([alike.unsqueeze(1), others], 1)
    factors = functional.normalize(functional.pad(factors, (0, dim - factors.shape[1])), dim=1)
    # a singular vector is often a few items' own: turned, all numbers of a row are alike, as Adam scales each by itself
    turn: Tensor = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    return (factors @ turn).masked_fill_(~had.unsqueeze(1), 0.0)


def _others(squared: Callable[[Tensor], Tensor], drawn: Tensor, most: int) -> Tensor:
    """(V, at most `most`) V S of the largest singular values but the first, by subspace iteration from `drawn`.

    squared : X^T X times a basis, without the first.
    """
    if not drawn.shape[1]:
        return drawn
    basis = torch.linalg.qr(squared(drawn)).Q
    for _ in range(PASSES - 1):
        basis = torch.linalg.qr(squared(basis)).Q
    squares, turned = torch.linalg.eigh((basis.T @ squared(basis)).double())  # of S, ascending
    best = slice(max(0, drawn.shape[1] - most), None)
    strength = torch.where(squares[best] > SURE, squares[best], 0.0).sqrt()
    found: Tensor = basis @ (turned[:, best] * strength).float()
    return found


def begin_with_factors(table: EmbeddingTable, histories: Histories, items: int, std: float, seed: int) -> None:
    """Put the factors of the items in place of their drawn rows, at the length that a drawn row has on average.

    All ranks must call it. Rows of items that nobody had before the labels, and of features, stay as they were drawn.

    Parameters
    ----------
    histories : of this rank's share of the users.
    items : V; the first V rows of the table are theirs.
    std : of a drawn row's numbers.
    """
    weight, shard = table.weight, table.shard
    dim = weight.shape[1]
    factors = item_factors(histories, items, dim, torch.Generator().manual_seed(seed), weight.device)
    factors = from_first_rank(factors.to(weight.device))  # whose processor may round otherwise
    factors = factors[shard.rank :: shard.ranks]
    found = factors.any(1).nonzero().squeeze(1)
    with torch.no_grad():
        weight[found] = factors[found] * std * dim**0.5


def _squared(histories: Histories, basis: Tensor, weight: Tensor) -> Tensor:
    """X^T X times `basis` (V, width)."""
    result = torch.zeros_like(basis)
    for pairs in _portions(histories, len(basis)):
        of_users = functional.embedding_bag(
            pairs.items, basis, pairs.starts, mode="sum", per_sample_weights=weight[pairs.items]
        )
        of_users *= pairs.weight.square().unsqueeze(1)
        of_items = functional.embedding_bag(pairs.users, of_users, pairs.item_starts[:-1], mode="sum")
        result.index_add_(0, pairs.of_item, of_items)  # each of them once: in any order the same
    return result.mul_(weight.unsqueeze(1))


def _portions(histories: Histories, items: int) -> Iterator[_Pairs]:
    """Yield the pairs of about EVENTS_AT_ONCE events at a time."""
    for sequences in histories():
        sequences = sequences.to("cpu")
        past = sequences.before_labels
        ends = past.cumsum(0)
        cuts = torch.searchsorted(ends, torch.arange(0, int(past.sum()), EVENTS_AT_ONCE), right=True).unique().tolist()
        for first, last in pairwise([*cuts, len(sequences)]):
            if (pairs := _pairs(sequences, past, first, last, items)) is not None:
                yield pairs


def _pairs(sequences: Sequences, past: Tensor, first: int, last: int, items: int) -> _Pairs | None:
    """Make the pairs of users `first` to `last` - 1; None: they have none."""
    sizes = past[first:last]
    some = sizes.nonzero().squeeze(1)  # there may be many users who have nothing but labels
    sizes = sizes[some]
    user = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    inside = torch.arange(len(user)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    item = sequences.items[sequences.offsets[first:last][some].repeat_interleave(sizes) + inside].long()
    known = item >= FIRST_ITEM
    keys = (user[known] * items + item[known]).unique()  # B holds a pair once
    if not len(keys):
        return None
    item = keys % items
    _, user, numbers = keys.div(items, rounding_mode="floor").unique_consecutive(
        return_inverse=True, return_counts=True
    )
    of_item, each = item.unique(return_counts=True)
    return _Pairs(
        item,
        numbers.cumsum(0) - numbers,
        numbers.rsqrt(),
        of_item,
        user[item.argsort(stable=True)],
        functional.pad(each.cumsum(0), (1, 0)),
    )

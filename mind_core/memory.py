"""What a user's own items score on top of the best match, because the user had them before.

    f(u, i) = max_j v_j . e_i + r(u, i),   r(u, i) = 0 for items that are not in u's history

r is learned from how often, how lately and how regularly the item came (mind_core.repeats), and from the item itself:
bread is bought again, a television is not. A part of the best match is taken back, as how well an item goes with the
others says what a user may come to like, and little of which of his own he buys next. The weights are shared by all
users and items. Every one of a user's items is scored exactly, in training (mind_core.loss) as in serving.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mind_core.repeats import TRAITS

HIDDEN = 16
MATCH = 0.3  # m at the start: what the best match counts among a user's own items, where it counts 1 among all others


class RepeatMemory(nn.Module):
    """r(u, i) of the items of a history: a + w . traits + MLP(traits) + c . e_i - (1 - m) max_j v_j . e_i.

    At first all weights are 0 and m is MATCH: own items are ranked by the best match, behind the others.

    Parameters
    ----------
    dim : d, of items.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(len(TRAITS), 1)
        self.hidden = nn.Linear(len(TRAITS), HIDDEN)
        self.output = nn.Linear(HIDDEN, 1, bias=False)
        self.item = nn.Linear(dim, 1, bias=False)
        self.match = nn.Parameter(torch.tensor([MATCH]))  # m
        for layer in (self.linear, self.output, self.item):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.linear.bias)

    def of_items(self, vectors: Tensor) -> Tensor:
        """Compute c . e_i, the part of r that is an item's own.  (..., d) to (...)."""
        own: Tensor = self.item(vectors).squeeze(-1)
        return own

    def forward(self, items: Tensor, traits: Tensor, best: Tensor) -> Tensor:
        """Score a user's own items.

        Parameters
        ----------
        items : (W, L), c . e_i of the behaviours; B / W rows of the traits look at each.
        traits : (B, L, len(TRAITS)), float32.
        best : (B, L), the best match max_j v_j . e_i of each.

        Returns
        -------
        (B, L) r(u, i), in units of the score v_j . e_i.
        """
        traits = traits.to(items.dtype)
        learned: Tensor = (self.linear(traits) + self.output(functional.relu(self.hidden(traits)))).squeeze(-1)
        items = items.repeat_interleave(traits.shape[0] // items.shape[0], 0)
        return learned + items - (1 - self.match) * best

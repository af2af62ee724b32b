"""Shared negatives: a few hundred items drawn once per step, and the expected count that logQ needs.

The proposal is the mixture really drawn: n_u uniform draws among M items, n_p draws ~ count^alpha, and the batch's own
labels, which follow the label distribution. An item's expected count under it is
``n_u / M + n_p * P_alpha(i) + B * P_label(i)``; subtracting its log from the logit makes the sampled softmax
consistent with the full one (Bengio & Senecal 2008; Yi et al. 2019 for in-batch).

M is all items but the cold ones. A cold item is never a label: as a negative it would be pushed away from every user,
and with it the features that its vector is made of.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mind_core.config import LossConfig
from mind_core.special_rows import FIRST_ITEM


class NegativeSampler(nn.Module):
    """Draws item indices >= FIRST_ITEM.

    Parameters
    ----------
    counts : (V,) events per item index in the training split, padding and unknown included.
    labels : (V,) how often each index is a label in an epoch; None: `counts`.
    cold : (V,) bool, the items that training never sees and that are made of their features: never drawn. None: none.

    Raises
    ------
    ValueError
        If all items are cold.
    """

    candidates: Tensor  # (M,) the item indices that can be drawn
    drawable: Tensor  # (V,) bool, the same as a mask
    cumulative: Tensor  # (V - FIRST_ITEM + 1,) of P_alpha, from 0 to 1
    label_share: Tensor  # (V,) P_label, only with in-batch negatives

    def __init__(self, config: LossConfig, counts: Tensor, labels: Tensor | None = None, cold: Tensor | None = None):
        super().__init__()
        drawn = torch.ones_like(counts, dtype=torch.bool) if cold is None else ~cold
        drawn[:FIRST_ITEM] = False
        if not drawn.any():
            raise ValueError("every item is cold: there is nothing to draw negatives from")
        self.config = config = config.of_items(int(drawn.sum()))
        self.register_buffer("drawable", drawn)
        self.register_buffer("candidates", drawn.nonzero().squeeze(1))
        self.last = int(self.candidates[-1])
        popularity = counts[FIRST_ITEM:].double() ** config.popularity_power
        if config.popularity_power > 0:
            popularity[counts[FIRST_ITEM:] == 0] = 0.0
        popularity[~drawn[FIRST_ITEM:]] = 0.0
        share = popularity.div_(popularity.sum())
        self.register_buffer("cumulative", torch.cat([share.new_zeros(1), share.cumsum(0)]))
        if config.in_batch:
            labels = counts if labels is None else labels
            share = labels[FIRST_ITEM:].double() / labels.sum()
            self.register_buffer("label_share", torch.cat([share.new_zeros(FIRST_ITEM), share]))

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Draw (N,) negatives shared by the batch of these `labels` (B,). kind: full gives every candidate once."""
        device = labels.device
        if self.config.kind == "full":
            return self.candidates
        parts = []
        if self.config.uniform_negatives:
            shape = (self.config.uniform_negatives,)
            place = torch.randint(0, len(self.candidates), shape, generator=generator, device=device)
            parts.append(self.candidates[place])
        if self.config.popularity_negatives:
            shape = (self.config.popularity_negatives,)
            uniform = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
            place = torch.searchsorted(self.cumulative[1:], uniform, right=True)
            parts.append((place + FIRST_ITEM).clamp_(max=self.last))
        if self.config.in_batch:
            parts.append(labels)
        return torch.cat(parts)

    def log_expected_count(self, items: Tensor, batch: int) -> Tensor:
        """Compute the log of how often `items` are expected in one draw; 0 for the full softmax or without logQ.

        log( n_u / M + n_p * P_alpha(i) + B * P_label(i) )

        Four items, of which one is eight times as frequent as each other; 8 uniform draws and no others:

        >>> config = LossConfig(uniform_negatives=8, popularity_negatives=0, logq=True, in_batch=False)
        >>> sampler = NegativeSampler(config, counts=torch.tensor([0, 0, 8, 1, 1, 1]))
        >>> sampler.log_expected_count(torch.tensor([2, 5]), batch=16).exp().tolist()
        [2.0, 2.0]
        """
        if self.config.kind == "full" or not self.config.logq:
            return torch.zeros(items.shape, device=items.device)
        each = self.config.uniform_negatives / len(self.candidates)
        expected = torch.full(items.shape, each, device=items.device).double()
        expected.masked_fill_(~self.drawable[items], 0.0)
        place = items.clamp(min=FIRST_ITEM) - FIRST_ITEM
        popularity = self.cumulative[place + 1] - self.cumulative[place]
        expected += self.config.popularity_negatives * popularity.masked_fill_(items < FIRST_ITEM, 0.0)
        if self.config.in_batch:
            expected += batch * self.label_share[items]
        # an item that can never be drawn (a label without count) gets the smallest finite correction
        return expected.clamp_(min=1e-12).log().float()

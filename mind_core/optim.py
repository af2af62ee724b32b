"""Row-wise optimisers: they update exactly the rows that a step touched.

Lazy Adam differs from dense Adam in what happens to an untouched row: nothing. Its moments do not decay and it does not
drift; the bias correction therefore counts the row's own updates, not the run's steps. Weight decay is decoupled
(AdamW) and applied when the row is touched, so a row that is seen in a share f of the steps decays f times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from mind_core.distributed import sum_over_ranks


def clip_factor(replicated: Iterable[Tensor], sharded: Iterable[Tensor], most: float) -> Tensor:
    """Return what gradients must be multiplied by for their norm to be `most` at most: up to 1, alike on all ranks.

    Parameters
    ----------
    replicated : gradients that every rank holds alike, once they are averaged.
    sharded : gradients of which every rank holds a part.

    Returns
    -------
    A float32 scalar; NaN or 0 where a gradient is not finite.
    """
    squares = [each.double().square().sum() for each in replicated]
    parts = [each.double().square().sum() for each in sharded]
    total = sum(squares) + (sum_over_ranks(torch.stack(parts).sum()) if parts else 0.0)
    norm = torch.as_tensor(total, dtype=torch.float64).sqrt()
    return (most / norm.clamp(min=most)).float()


class RowOptimizer(Protocol):
    def update(self, weight: Tensor, rows: Tensor, grad: Tensor, learning_rate: float) -> None:
        """Update weight[rows] in place. rows (R,) distinct, none of them padding; grad (R, d)."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


class _State:
    """Optimiser tensors by name, saved and restored as they are."""

    state: dict[str, Tensor]

    def state_dict(self) -> dict[str, Tensor]:
        return self.state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in self.state.items():
            value.copy_(state[name])


class RowAdam(_State):
    """Lazy AdamW.  State per row: first and second moment (d each) and the row's number of updates.

    Source: Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019 for the decay.
    """

    def __init__(self, weight: Tensor, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999)):
        self.weight_decay, self.betas, self.eps = weight_decay, betas, 1e-8
        self.corrections = [_bias_corrections(beta, weight.device) for beta in betas]
        self.state = {
            "first": torch.zeros_like(weight),
            "second": torch.zeros_like(weight),
            "updates": torch.zeros(len(weight), dtype=torch.int32, device=weight.device),
        }

    @torch.no_grad()
    def update(self, weight: Tensor, rows: Tensor, grad: Tensor, learning_rate: float) -> None:
        beta1, beta2 = self.betas
        count = self.state["updates"].index_select(0, rows) + 1
        first, second = (self.state[name].index_select(0, rows) for name in ("first", "second"))
        change = (grad - first).mul_(1 - beta1), (grad * grad).sub_(second).mul_(1 - beta2)
        self.state["updates"].index_copy_(0, rows, count)
        self.state["first"].index_add_(0, rows, change[0])  # an add to distinct rows is faster than a copy
        self.state["second"].index_add_(0, rows, change[1])
        correction1, correction2 = (table[count.clamp(max=len(table) - 1).long()] for table in self.corrections)
        denominator = second.add_(change[1]).div_(correction2).sqrt_().add_(self.eps)
        step = first.add_(change[0]).div_(correction1).div_(denominator)
        _descend(weight, rows, step, learning_rate, self.weight_decay)


class RowAdagrad(_State):
    """Row-wise Adagrad: one accumulator per row, the mean over d of the squared gradients.

    Memory per row is 4 bytes instead of Adam's 8 d + 4.  Source: Duchi et al. 2011; row-wise form as in FBGEMM.
    """

    def __init__(self, weight: Tensor, weight_decay: float = 0.0):
        self.weight_decay, self.eps = weight_decay, 1e-8
        self.state = {"sum": torch.zeros(len(weight), device=weight.device)}

    @torch.no_grad()
    def update(self, weight: Tensor, rows: Tensor, grad: Tensor, learning_rate: float) -> None:
        total = self.state["sum"].index_select(0, rows) + grad.square().mean(1)
        self.state["sum"].index_copy_(0, rows, total)
        step = grad / (total.sqrt() + self.eps).unsqueeze(1)
        _descend(weight, rows, step, learning_rate, self.weight_decay)


def _bias_corrections(beta: float, device: torch.device) -> Tensor:
    """(n, 1) float32: 1 - beta^t by t, until it is 1.

    A table, because pow rounds by an element's place in its tensor, and a row's update must not depend on which others
    are updated beside it: a sharded table would not hold the bits of a replicated one.
    """
    last = math.ceil(math.log(2**-25) / math.log(beta))
    return (1 - beta ** torch.arange(last + 1, dtype=torch.float64)).float().unsqueeze(1).to(device)


def _descend(weight: Tensor, rows: Tensor, step: Tensor, learning_rate: float, weight_decay: float) -> None:
    """weight[rows] = (1 - rate * decay) * weight[rows] - rate * step.  Overwrites `step`."""
    if weight_decay:
        step = step.add_(weight.index_select(0, rows).mul_(weight_decay))
    weight.index_add_(0, rows, step.mul_(-learning_rate))  # its own `alpha` takes four times as long

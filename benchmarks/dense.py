"""The baseline that public trainers follow: a gradient as large as the table, and Adam over all of it on every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DenseAdam:
    """Takes the place of a `mind_core.optim.RowOptimizer`; the rest of a training step stays ours.

    The gradient of an `nn.Embedding` is a zero table into which the step's rows are added; `torch.optim.Adam` then
    walks the table and both moments. Unlike in lazy Adam, a row that the step did not touch moves on by its momentum.
    """

    def __init__(self, weight: Tensor, learning_rate: float):
        self.parameter = nn.Parameter(weight.detach())  # the same storage
        self.optimizer = torch.optim.Adam([self.parameter], lr=learning_rate)

    @torch.no_grad()
    def update(self, weight: Tensor, rows: Tensor, grad: Tensor, learning_rate: float) -> None:
        """Update all of `weight`; row 0 (padding) has no gradient and therefore never moves."""
        dense = torch.zeros_like(weight).index_add_(0, rows, grad)
        dense[0] = 0.0
        self.parameter.grad = dense
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: a benchmark is not resumed."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing to do."""

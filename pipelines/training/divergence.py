"""When a training must not go on: numbers that are not finite, and a validation that chance beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from mind_core.diagnostics import all_finite
from mind_core.distributed import sum_over_ranks
from mind_core.training import Trainer
from pipelines.errors import CALMER, DivergedError
from pipelines.words import counted

FOUND_BY_CHANCE = 8.0  # users of a validation for whom chance finds an item: with fewer, it says nothing
BELOW = 0.25  # of chance: where it finds 8, one or none comes of chance in 3 of 1,000 validations


def require_finite_losses(losses: Sequence[torch.Tensor], trainer: Trainer, per_epoch: int) -> None:
    """Check the losses of the newest steps, on every rank alike.

    losses : of this rank, a scalar a step, the newest last.  per_epoch : steps.

    Raises
    ------
    DivergedError
        With the first step whose loss is not finite on some rank, its place in the epoch, and the largest gradient.
    """
    if not losses:
        return
    means = sum_over_ranks(torch.stack(list(losses)).float())
    wrong = (~torch.isfinite(means)).nonzero()
    if len(wrong) == 0:
        return
    first = trainer.step - len(losses) + int(wrong[0])  # from 0
    raise DivergedError(
        f"the training diverged: its loss is {float(means[wrong[0]])} at step {first + 1} "
        f"(batch {first % per_epoch + 1} of {per_epoch}, epoch {first // per_epoch + 1}); "
        f"{largest_gradient(trainer)}; {CALMER}"
    )


def require_finite_weights(trainer: Trainer) -> None:
    """Check all weights, on every rank alike: the loss says nothing of the update that has followed it.

    Raises
    ------
    DivergedError
        With the step, the first tensor that is not finite here, and the largest gradient.
    """
    weights = trainer.model.state_dict()
    wrong = [name for name, value in weights.items() if not all_finite([value])]
    if sum_over_ranks(torch.tensor(float(bool(wrong)), device=trainer.device)).item():
        where = wrong[0] if wrong else "those of another worker"
        raise DivergedError(
            f"the training diverged: its weights are not finite after step {trainer.step} ({where}); "
            f"{largest_gradient(trainer)}; {CALMER}"
        )


def largest_gradient(trainer: Trainer) -> str:
    """Name the largest entry of the dense gradients of the last step here; NaN counts as the largest.

    The rows' gradients are gone once they are applied.
    """
    sizes = {
        name: float(torch.nan_to_num(each.grad.abs().max(), nan=math.inf))
        for name, each in trainer.model.encoder.named_parameters()
        if each.grad is not None
    }
    if not sizes:
        return "no gradient is at hand"
    name = max(sizes, key=lambda name: sizes[name])
    value = "not finite" if math.isinf(sizes[name]) else f"{sizes[name]:.3g}"
    return f"the largest gradient of step {trainer.step} is {value}, of {name}"


def require_above_chance(metrics: Mapping[str, float], cutoff: int, users: int, items: int) -> None:
    """Compare a validation with lists that are drawn, which find one of `items` with chance `cutoff` / `items`.

    metrics : of the validation, hit_rate@`cutoff` among them, over `users`.

    Raises
    ------
    DivergedError
        If it has found less than a quarter of what chance finds, where that is enough to tell.

    Notes
    -----
    Chance finds more for users with several targets: the bound is for one.

    >>> require_above_chance({"hit_rate@20": 0.02}, cutoff=20, users=1000, items=400)
    >>> require_above_chance({"hit_rate@20": 0.0}, cutoff=20, users=9, items=400)
    """
    chance = cutoff / max(items, 1)
    found = metrics[f"hit_rate@{cutoff}"]
    if users * chance >= FOUND_BY_CHANCE and found < BELOW * chance:
        raise DivergedError(
            f"the validation is below chance: hit_rate@{cutoff} is {found:.4f}, drawn lists have {chance:.4f} "
            f"({counted(users, 'user')}, {counted(items, 'item')}); {CALMER}"
        )

"""What must end a training, and the one line that it ends with."""

from __future__ import annotations

import pytest
import torch

from mind_core.config import LossConfig, ModelConfig, OptimConfig
from mind_core.features import item_bags
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.special_rows import FIRST_ITEM
from mind_core.training import Trainer
from pipelines.errors import DivergedError
from pipelines.training.divergence import require_above_chance, require_finite_losses, require_finite_weights

NAN, FINE = torch.tensor(float("nan")), torch.tensor(1.0)


@pytest.fixture
def trainer() -> Trainer:
    items = 20 + FIRST_ITEM
    model = MIND(ModelConfig(dim=8, interests=2, max_history=6, hidden=(8,)), items, [], [], 0)
    sampler = NegativeSampler(LossConfig(uniform_negatives=4, popularity_negatives=4), torch.ones(items))
    made = Trainer(model, item_bags([], items), sampler, OptimConfig(), total_steps=100, seed=0)
    made.step = 37
    return made


def test_the_first_step_that_is_not_finite_is_named_with_its_place(trainer: Trainer) -> None:
    weight = next(trainer.model.encoder.parameters())
    weight.grad = torch.full_like(weight, 3.5)
    with pytest.raises(DivergedError) as caught:
        require_finite_losses([FINE, FINE, NAN, FINE, NAN], trainer, per_epoch=10)
    said = str(caught.value)
    assert said.startswith("the training diverged: its loss is nan at step 35 (batch 5 of 10, epoch 4); ")
    assert "the largest gradient of step 37 is 3.5, of " in said
    assert "lower optim.learning_rate" in said
    weight.grad[0] = float("nan")
    with pytest.raises(DivergedError, match="largest gradient of step 37 is not finite"):
        require_finite_losses([NAN], trainer, per_epoch=10)


def test_finite_losses_and_weights_pass(trainer: Trainer) -> None:
    require_finite_losses([], trainer, per_epoch=10)
    require_finite_losses([FINE], trainer, per_epoch=10)
    require_finite_weights(trainer)


def test_weights_that_are_not_finite_are_named(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.model.item_table.weight[3, 0] = float("inf")
    with pytest.raises(DivergedError, match=r"not finite after step 37 \(item_table\.weight\); no gradient is at hand"):
        require_finite_weights(trainer)


@pytest.mark.parametrize(
    ("found", "users", "items", "stops"),
    [
        (0.0, 1000, 1000, True),  # chance: 20 users
        (0.004, 1000, 1000, True),
        (0.006, 1000, 1000, False),  # at a third of chance: bad, and no proof
        (0.0, 300, 1000, False),  # chance: 6 users
        (0.0, 1000, 0, True),
    ],
)
def test_a_validation_below_chance_stops_where_it_can_be_told(
    found: float, users: int, items: int, stops: bool
) -> None:
    metrics = {"hit_rate@10": 1.0, "hit_rate@20": found}
    if stops:
        with pytest.raises(DivergedError, match="the validation is below chance: hit_rate@20"):
            require_above_chance(metrics, 20, users, items)
    else:
        require_above_chance(metrics, 20, users, items)

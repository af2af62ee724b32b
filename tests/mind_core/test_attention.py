"""Label-aware attention for p from 0 to infinity: by hand, against the reference, and its gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core.attention import label_aware_attention
from tests.mind_core import reference
from tests.mind_core.given import generator, own_mask

POWERS = [0.0, 0.5, 1.0, 3.0, math.inf]

# two interests along the axes, a label that agrees with them by 1 and -1
INTERESTS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
LABEL = torch.tensor([[1.0, -1.0]])
BOTH = torch.ones(1, 2).bool()


def test_power_zero_is_the_plain_mean() -> None:
    user, weights = label_aware_attention(INTERESTS, LABEL, BOTH, 0.0)
    assert weights.tolist() == [[0.5, 0.5]]
    assert user.tolist() == [[0.5, 0.5]]


def test_power_zero_is_the_mean_of_the_users_own_interests_only() -> None:
    user, weights = label_aware_attention(INTERESTS, LABEL, torch.tensor([[True, False]]), 0.0)
    assert weights.tolist() == [[1.0, 0.0]]
    assert user.tolist() == [[1.0, 0.0]]


def test_power_one_is_the_softmax_of_the_dots() -> None:
    _, weights = label_aware_attention(INTERESTS, LABEL, BOTH, 1.0)
    assert weights[0, 0].item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_power_infinity_picks_the_best_match() -> None:
    user, weights = label_aware_attention(INTERESTS, -LABEL, BOTH, math.inf)
    assert weights.tolist() == [[0.0, 1.0]]
    assert user.tolist() == [[0.0, 1.0]]


def test_power_infinity_breaks_ties_by_the_first_interest() -> None:
    _, weights = label_aware_attention(INTERESTS, torch.ones(1, 2), BOTH, math.inf)
    assert weights.tolist() == [[1.0, 0.0]]


def test_power_infinity_never_picks_an_interest_that_is_not_the_users() -> None:
    # given own dots of -1 and a foreign one of +5
    interests = torch.tensor([[[-1.0], [5.0]]])
    _, weights = label_aware_attention(interests, torch.ones(1, 1), torch.tensor([[True, False]]), math.inf)
    assert weights.tolist() == [[1.0, 0.0]]


def test_a_large_power_approaches_infinity() -> None:
    large, _ = label_aware_attention(INTERESTS, LABEL, BOTH, 1e4)
    limit, _ = label_aware_attention(INTERESTS, LABEL, BOTH, math.inf)
    assert torch.allclose(large, limit)


@pytest.mark.parametrize("power", POWERS)
def test_attention_equals_the_float64_reference(power: float) -> None:
    g = generator(1)
    interests = torch.randn(6, 4, 5, generator=g, dtype=torch.float64)
    label = torch.randn(6, 5, generator=g, dtype=torch.float64)
    counts = [1, 2, 3, 4, 4, 2]
    user, weights = label_aware_attention(interests, label, own_mask(counts, 4), power)
    for b, count in enumerate(counts):
        v, w = reference.label_aware_attention(interests[b].numpy(), label[b].numpy(), count, power)
        np.testing.assert_allclose(user[b].numpy(), v, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(weights[b].numpy(), w, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("power", POWERS)
def test_attention_gradient_equals_finite_differences(power: float) -> None:
    g = generator(2)
    interests = torch.randn(3, 3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    label = torch.randn(3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    own = own_mask([1, 2, 3], 3)
    if math.isinf(power):
        user, _ = label_aware_attention(interests, label, own, power)
        user.sin().sum().backward()
        best = (interests @ label.unsqueeze(2)).squeeze(2).masked_fill(~own, -math.inf).argmax(1)
        expected = torch.zeros_like(interests)
        for b, j in enumerate(best.tolist()):
            expected[b, j] = interests[b, j].cos()
        assert interests.grad is not None
        assert torch.allclose(interests.grad, expected)
        return
    assert torch.autograd.gradcheck(lambda v, e: label_aware_attention(v, e, own, power)[0], (interests, label))


@pytest.mark.parametrize("power", POWERS)
def test_foreign_interests_get_no_gradient(power: float) -> None:
    interests = torch.randn(2, 3, 4, generator=generator(3), requires_grad=True)
    user, _ = label_aware_attention(interests, torch.ones(2, 4), own_mask([1, 2], 3), power)
    user.sum().backward()
    assert interests.grad is not None
    assert interests.grad.isfinite().all()
    assert (interests.grad[0, 1:] == 0).all()
    assert (interests.grad[1, 2:] == 0).all()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    users=st.integers(1, 5),
    interests=st.integers(1, 6),
    power=st.one_of(st.floats(0, 100), st.just(math.inf)),
    scale=st.floats(1e-3, 1e3),
)
def test_weights_are_a_distribution_over_own_interests(
    seed: int, users: int, interests: int, power: float, scale: float
) -> None:
    g = generator(seed)
    v = scale * torch.randn(users, interests, 3, generator=g)
    own = own_mask(torch.randint(1, interests + 1, (users,), generator=g).tolist(), interests)
    user, weights = label_aware_attention(v, torch.randn(users, 3, generator=g), own, power)
    assert torch.allclose(weights.sum(1), torch.ones(users), atol=1e-5)
    assert (weights[~own] == 0).all()
    assert user.isfinite().all()
    assert torch.allclose(user, (weights.unsqueeze(2) * v).sum(1), rtol=1e-4, atol=1e-4 * scale)

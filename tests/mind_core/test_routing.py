"""K'_u, squash, coupling and B2I routing, by hand, against the float64 reference, and as properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mind_core.routing import adaptive_interest_count, b2i_routing, coupling, squash
from tests.mind_core import reference
from tests.mind_core.given import generator, own_mask, prefix_mask


def given_users(
    seed: int, users: int, interests: int, behaviours: int, dim: int, std: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """mapped (B, L, d), mask (B, L), own (B, K), logits (K, L) in float64; user 0 has no behaviours."""
    g = generator(seed)
    mapped = std * torch.randn(users, behaviours, dim, generator=g, dtype=torch.float64)
    lengths = torch.randint(0, behaviours + 1, (users,), generator=g)
    lengths[0] = 0
    own = torch.randint(1, interests + 1, (users,), generator=g)
    logits = torch.randn(interests, behaviours, generator=g, dtype=torch.float64)
    return mapped, prefix_mask(lengths.tolist(), behaviours), own_mask(own.tolist(), interests), logits


# --- K'_u ---


@pytest.mark.parametrize(
    ("behaviours", "expected"),
    [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (7, 2), (8, 3), (15, 3), (16, 4), (31, 4), (32, 5), (1000, 5)],
)
def test_interest_count_is_floor_of_log2_between_one_and_k(behaviours: int, expected: int) -> None:
    assert adaptive_interest_count(torch.tensor([behaviours]), interests=5).tolist() == [expected]


def test_interest_count_is_exact_around_every_power_of_two() -> None:
    sizes = [2**k + step for k in range(1, 40) for step in (-1, 0, 1)]
    expected = [reference.adaptive_interest_count(n, 64) for n in sizes]
    assert adaptive_interest_count(torch.tensor(sizes), interests=64).tolist() == expected


def test_interest_count_takes_any_integer_type_and_returns_int64() -> None:
    count = adaptive_interest_count(torch.tensor([9, 2], dtype=torch.int32), interests=4)
    assert count.dtype == torch.int64
    assert count.tolist() == [3, 1]


# --- squash ---


def test_squash_shrinks_a_vector_of_length_five_to_25_over_26() -> None:
    given = torch.tensor([[3.0, 4.0]])
    assert torch.allclose(squash(given), torch.tensor([[3.0, 4.0]]) / 5 * 25 / 26)


def test_squash_of_zero_is_zero_with_a_finite_gradient() -> None:
    z = torch.zeros(2, 3, requires_grad=True)
    squash(z).sum().backward()
    assert torch.equal(squash(z.detach()), torch.zeros(2, 3))
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("length", [1e-4, 0.01, 0.5, 1.0, 20.0, 1e3])
def test_squash_equals_the_reference_at_every_length(length: float) -> None:
    z = torch.randn(7, generator=generator(1), dtype=torch.float64)
    z = length * z / z.norm()
    np.testing.assert_allclose(squash(z).numpy(), reference.squash(z.numpy()), rtol=1e-3 if length < 1e-3 else 1e-7)


def test_squash_gradient_equals_finite_differences() -> None:
    z = torch.randn(4, 5, generator=generator(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squash, (z,))


# --- coupling ---


def test_coupling_of_two_behaviours_and_two_interests_by_hand() -> None:
    # behaviour 0 prefers interest 0 by log 3, behaviour 1 is undecided, behaviour 2 is padding
    logits = torch.tensor([[[math.log(3.0), 0.0, 9.0], [0.0, 0.0, 0.0]]])
    weights = coupling(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True]]))
    assert torch.allclose(weights, torch.tensor([[[0.75, 0.5, 0.0], [0.25, 0.5, 0.0]]]))


def test_coupling_gives_interests_beyond_the_users_own_exactly_nothing() -> None:
    logits = torch.tensor([[[0.0], [0.0], [100.0]]])
    weights = coupling(logits, torch.tensor([[True]]), torch.tensor([[True, True, False]]))
    assert weights.flatten().tolist() == [0.5, 0.5, 0.0]


# --- routing ---


def test_one_iteration_by_hand() -> None:
    # given two orthogonal behaviours, each wholly given to its own interest
    mapped = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    logits = torch.tensor([[50.0, -50.0], [-50.0, 50.0]])
    capsules, weights = b2i_routing(mapped, torch.ones(1, 2).bool(), torch.ones(1, 2).bool(), logits, 1)
    # then z = (2, 0) and (0, 1), squashed to 4/5 and 1/2
    assert torch.allclose(weights, torch.eye(2).unsqueeze(0))
    assert torch.allclose(capsules, torch.tensor([[[0.8, 0.0], [0.0, 0.5]]]))


def test_two_iterations_by_hand() -> None:
    # given one behaviour e = 1 and logits 0, log 3: w = 1/4, 3/4; z = w; u = z^2 / (1 + z^2)
    first = [0.25**2 / (1 + 0.25**2), 0.75**2 / (1 + 0.75**2)]
    logits = [first[0], math.log(3) + first[1]]  # b += u . e, on top of what was there
    second = 1 / (1 + math.exp(logits[1] - logits[0]))
    _, weights = b2i_routing(
        torch.ones(1, 1, 1),
        torch.ones(1, 1).bool(),
        torch.ones(1, 2).bool(),
        torch.tensor([[0.0], [math.log(3)]]),
        iterations=2,
    )
    assert weights.flatten().tolist() == pytest.approx([second, 1 - second], rel=1e-6)


@pytest.mark.parametrize("iterations", [1, 2, 3, 6])
@pytest.mark.parametrize(("scale", "update"), [(1.0, "dot"), (3.0, "dot"), (0.0, "dot"), (2.0, "cosine")])
def test_routing_equals_the_float64_reference(iterations: int, scale: float, update: str) -> None:
    mapped, mask, own, logits = given_users(iterations, users=6, interests=4, behaviours=7, dim=5)
    capsules, weights = b2i_routing(mapped, mask, own, logits, iterations, scale=scale, update=update)
    for b in range(6):
        count = int(own[b].sum())
        u, w = reference.b2i_routing(
            mapped[b].numpy(), mask[b].tolist(), count, logits.numpy(), iterations, scale, update == "cosine"
        )
        np.testing.assert_allclose(capsules[b].numpy(), u, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(weights[b].numpy(), w, rtol=1e-7, atol=1e-9)


def test_routing_in_float32_stays_within_rounding_of_the_reference() -> None:
    mapped, mask, own, logits = given_users(3, users=5, interests=4, behaviours=20, dim=16)
    capsules, _ = b2i_routing(mapped.float(), mask, own, logits.float(), 3)
    for b in range(5):
        u, _ = reference.b2i_routing(mapped[b].numpy(), mask[b].tolist(), int(own[b].sum()), logits.numpy(), 3)
        np.testing.assert_allclose(capsules[b].numpy(), u, atol=2e-5)


def test_logits_may_be_given_per_user() -> None:
    mapped, mask, own, _ = given_users(4, users=3, interests=2, behaviours=4, dim=3)
    logits = torch.randn(3, 2, 4, generator=generator(5), dtype=torch.float64)
    capsules, _ = b2i_routing(mapped, mask, own, logits, 3)
    for b in range(3):
        alone, _ = b2i_routing(mapped[b : b + 1], mask[b : b + 1], own[b : b + 1], logits[b], 3)
        assert torch.allclose(capsules[b], alone[0])


def test_routing_does_not_write_into_the_saved_logits() -> None:
    mapped, mask, own, logits = given_users(6, users=3, interests=3, behaviours=4, dim=3)
    before = logits.clone()
    b2i_routing(mapped, mask, own, logits, 4)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("update", ["dot", "cosine"])
@pytest.mark.parametrize("iterations", [1, 3])
def test_mapping_the_capsules_is_mapping_the_behaviours_gradients_included(iterations: int, update: str) -> None:
    items, mask, own, logits = given_users(5, users=4, interests=3, behaviours=6, dim=5)
    shared_map = torch.randn(5, 5, generator=generator(6), dtype=torch.float64)
    found = []
    for inside in (True, False):
        e, s = items.clone().requires_grad_(), shared_map.clone().requires_grad_()
        arguments = (mask, own, logits, iterations)
        if inside:
            capsules, weights = b2i_routing(e, *arguments, shared_map=s, update=update, scale=2.0)
        else:
            capsules, weights = b2i_routing(e @ s, *arguments, update=update, scale=2.0)
        capsules.sin().sum().backward()
        found.append((capsules, weights, e.grad, s.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


# --- gradients ---


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_shared_map_gets_the_gradient_of_the_last_iteration_only(iterations: int) -> None:
    # given the coupling coefficients of the last iteration, held fixed
    g = generator(7)
    items = torch.randn(2, 5, 4, generator=g, dtype=torch.float64)
    shared_map = torch.randn(4, 4, generator=g, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(3, 5, generator=g, dtype=torch.float64)
    mask, own = prefix_mask([5, 3], 5), own_mask([3, 2], 3)
    capsules, weights = b2i_routing(items, mask, own, logits, iterations, shared_map=shared_map)
    (gradient,) = torch.autograd.grad(capsules.sin().sum(), shared_map)

    # when the last step alone is differenced numerically
    fixed = weights.detach()

    def last_step(candidate: Tensor) -> float:
        z = fixed @ (items @ candidate)
        u = torch.tensor(np.array([[reference.squash(x) for x in user] for user in z.numpy()]))
        return float(u.sin().sum())

    numeric = torch.zeros(4, 4, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            step = torch.zeros(4, 4, dtype=torch.float64)
            step[i, j] = 1e-6
            base = shared_map.detach()
            numeric[i, j] = (last_step(base + step) - last_step(base - step)) / 2e-6
    # then it is that gradient, and not zero
    assert gradient.abs().max() > 0.01
    assert torch.allclose(gradient, numeric, rtol=1e-5, atol=1e-7)


def test_coupling_coefficients_carry_no_gradient() -> None:
    mapped, mask, own, logits = given_users(8, users=3, interests=3, behaviours=4, dim=3)
    logits.requires_grad_()
    capsules, weights = b2i_routing(mapped.requires_grad_(), mask, own, logits, 3)
    assert not weights.requires_grad
    capsules.sum().backward()
    assert logits.grad is None


def test_padding_gets_no_gradient() -> None:
    mapped, mask, own, logits = given_users(9, users=4, interests=3, behaviours=5, dim=3)
    capsules, _ = b2i_routing(mapped.requires_grad_(), mask, own, logits, 3)
    capsules.sum().backward()
    assert mapped.grad is not None
    assert torch.equal(mapped.grad[~mask], torch.zeros_like(mapped.grad[~mask]))


# --- properties ---

shapes = st.tuples(
    st.integers(0, 2**31),  # seed
    st.integers(1, 6),  # users
    st.integers(1, 7),  # K
    st.integers(1, 12),  # L
    st.integers(1, 9),  # d
)


@settings(deadline=None, max_examples=60)
@given(shape=shapes, iterations=st.integers(1, 6), update=st.sampled_from(["dot", "cosine"]))
def test_every_real_behaviour_hands_out_one_unit_among_own_interests(
    shape: tuple[int, int, int, int, int], iterations: int, update: str
) -> None:
    mapped, mask, own, logits = given_users(*shape)
    capsules, weights = b2i_routing(mapped.float(), mask, own, logits.float(), iterations, update=update)
    assert torch.allclose(weights.sum(1), mask.float(), atol=1e-6)
    outside = ~(own.unsqueeze(2) & mask.unsqueeze(1))
    assert torch.equal(weights[outside], torch.zeros_like(weights[outside]))
    assert (weights >= 0).all()
    assert (capsules.norm(dim=-1) < 1).all()
    assert torch.equal(capsules[0], torch.zeros_like(capsules[0])), "no behaviours: the zero capsule"


@settings(deadline=None, max_examples=30)
@given(shape=shapes, iterations=st.integers(1, 6), order=st.randoms(use_true_random=False))
def test_permuting_users_permutes_capsules(
    shape: tuple[int, int, int, int, int], iterations: int, order: object
) -> None:
    mapped, mask, own, logits = given_users(*shape)
    places = list(range(len(mapped)))
    order.shuffle(places)  # type: ignore[attr-defined]
    capsules, weights = b2i_routing(mapped, mask, own, logits, iterations)
    shuffled, shuffled_weights = b2i_routing(mapped[places], mask[places], own[places], logits, iterations)
    assert torch.allclose(shuffled, capsules[places], atol=1e-12)
    assert torch.allclose(shuffled_weights, weights[places], atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(shape=shapes, iterations=st.integers(1, 6), extra=st.integers(1, 5))
def test_more_padding_changes_nothing(shape: tuple[int, int, int, int, int], iterations: int, extra: int) -> None:
    mapped, mask, own, logits = given_users(*shape)
    capsules, weights = b2i_routing(mapped, mask, own, logits, iterations)
    wider, g = (len(mapped), extra, mapped.shape[2]), generator(shape[0])
    junk = 100 * torch.randn(wider, generator=g, dtype=torch.float64)
    more_logits = torch.randn(len(logits), extra, generator=g, dtype=torch.float64)
    padded, padded_weights = b2i_routing(
        torch.cat([mapped, junk], 1),
        torch.cat([mask, torch.zeros(len(mask), extra).bool()], 1),
        own,
        torch.cat([logits, more_logits], 1),
        iterations,
    )
    assert torch.allclose(padded, capsules, atol=1e-12)
    assert torch.allclose(padded_weights[:, :, : mask.shape[1]], weights, atol=1e-12)
    assert (padded_weights[:, :, mask.shape[1] :] == 0).all()


@settings(deadline=None, max_examples=30)
@given(shape=shapes, iterations=st.integers(1, 5), std=st.floats(1e-3, 1e4))
def test_capsules_stay_finite_at_any_scale_of_the_embeddings(
    shape: tuple[int, int, int, int, int], iterations: int, std: float
) -> None:
    mapped, mask, own, logits = given_users(*shape, std=std)
    capsules, weights = b2i_routing(mapped.float(), mask, own, logits.float(), iterations)
    assert capsules.isfinite().all()
    assert weights.isfinite().all()
    assert (capsules.norm(dim=-1) <= 1 + 1e-6).all()

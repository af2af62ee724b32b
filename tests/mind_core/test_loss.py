"""Sampled softmax: by hand, against the reference and torch's cross entropy, and its limit, the full softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mind_core import loss
from mind_core.config import LossConfig, OptimConfig
from mind_core.loss import label_attention_vector, own_vectors, sampled_softmax_loss
from mind_core.negatives import NegativeSampler
from tests.mind_core import reference
from tests.mind_core.given import World, batches, generator, own_mask, trainer, world


def loss_of(
    user: Tensor, items: Tensor, labels: Tensor, negatives: Tensor, log_expected: Tensor, temperature: float = 1.0
) -> Tensor:
    """One value for each user, who has one vector; log_expected over all items."""
    corrections = log_expected[negatives]
    return torch.stack(
        [
            sampled_softmax_loss(u.view(1, 1, -1), items[y], items[negatives], y, negatives, corrections, temperature)
            for u, y in zip(user, labels.unsqueeze(1), strict=True)
        ]
    )


def given_catalogue(users: int = 5, items: int = 12, dim: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = generator(seed)
    user = torch.randn(users, dim, generator=g, dtype=torch.float64)
    vectors = torch.randn(items, dim, generator=g, dtype=torch.float64)
    return user, vectors, torch.randint(2, items, (users,), generator=g)


def test_two_equal_scores_cost_log_two() -> None:
    items = torch.ones(4, 1)
    loss = loss_of(torch.ones(1, 1), items, torch.tensor([2]), torch.tensor([3]), torch.zeros(4))
    assert loss.tolist() == pytest.approx([math.log(2)])


def test_the_correction_divides_a_negative_by_how_often_it_is_expected() -> None:
    # given equal scores, and a negative that is expected 3 times
    log_expected = torch.tensor([0.0, 0.0, math.log(2), math.log(3)])
    loss = loss_of(torch.ones(1, 1), torch.ones(4, 1), torch.tensor([2]), torch.tensor([3]), log_expected)
    # then it counts for a third: -log(1 / (1 + 1/3)); the label is always there once, and is not corrected
    assert loss.tolist() == pytest.approx([math.log(4 / 3)])


def test_a_negative_that_is_the_samples_own_label_is_left_out_for_that_sample_only() -> None:
    items = torch.ones(4, 1)
    loss = loss_of(torch.ones(2, 1), items, torch.tensor([2, 3]), torch.tensor([2, 2]), torch.zeros(4))
    # sample 0: both negatives are its label; sample 1: both count
    assert loss.tolist() == pytest.approx([0.0, math.log(3)])


def test_temperature_divides_every_score() -> None:
    items = torch.tensor([[0.0], [0.0], [1.0], [0.0]])
    loss = loss_of(torch.ones(1, 1), items, torch.tensor([2]), torch.tensor([3]), torch.zeros(4), temperature=0.5)
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-2))])


def test_temperature_does_not_divide_the_correction() -> None:
    log_expected = torch.tensor([0.0, 0.0, 0.0, math.log(3)])
    loss = loss_of(torch.ones(1, 1), torch.zeros(4, 1), torch.tensor([2]), torch.tensor([3]), log_expected, 0.1)
    assert loss.tolist() == pytest.approx([math.log(4 / 3)])


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_sampled_softmax_equals_the_float64_reference(temperature: float) -> None:
    user, items, labels = given_catalogue()
    negatives = torch.randint(2, 12, (9,), generator=generator(1))
    log_expected = torch.randn(12, generator=generator(2), dtype=torch.float64)
    loss = loss_of(user, items, labels, negatives, log_expected, temperature)
    expected = [
        reference.sampled_softmax(
            (items @ user[b]).numpy(), int(labels[b]), negatives.tolist(), log_expected.numpy(), temperature
        )
        for b in range(5)
    ]
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)


def test_gradient_equals_finite_differences_of_the_reference() -> None:
    user, items, labels = given_catalogue(users=2, items=6, dim=3)
    negatives = torch.tensor([3, 5, 3, 4, 2])
    log_expected = torch.linspace(-1, 1, 6, dtype=torch.float64)
    items.requires_grad_()
    loss_of(user, items, labels, negatives, log_expected, 0.5).sum().backward()

    def total(vectors: np.ndarray) -> float:
        pairs = zip(user.numpy(), labels.tolist(), strict=True)
        return sum(
            reference.sampled_softmax(vectors @ u, y, negatives.tolist(), log_expected.numpy(), 0.5) for u, y in pairs
        )

    assert items.grad is not None
    for i in range(6):
        for k in range(3):
            step = np.zeros((6, 3))
            step[i, k] = 1e-6
            base = items.detach().numpy()
            numeric = (total(base + step) - total(base - step)) / 2e-6
            assert items.grad[i, k].item() == pytest.approx(numeric, rel=1e-4, abs=1e-6)


# --- scores of users with several interests ---


def given_interests() -> tuple[Tensor, list[int], Tensor, Tensor]:
    g = generator(4)
    interests = torch.randn(4, 3, 5, generator=g, dtype=torch.float64)
    label = torch.randn(4, 5, generator=g, dtype=torch.float64)
    return interests, [1, 2, 3, 3], label, torch.randn(6, 5, generator=g, dtype=torch.float64)


def scores(vectors: Tensor, items: Tensor) -> Tensor:
    """(B, N), an item's score being its best match."""
    return (vectors @ items.T).amax(1)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 3.0, math.inf])
def test_label_attention_scores_everything_with_the_vector_that_the_label_picked(power: float, normalize: bool) -> None:
    interests, counts, label, negatives = given_interests()
    vectors = label_attention_vector(interests, own_mask(counts, 3), label, power, normalize)
    for b, own in enumerate(counts):
        user, _ = reference.label_aware_attention(interests[b].numpy(), label[b].numpy(), own, power)
        user = user / np.linalg.norm(user) if normalize else user
        np.testing.assert_allclose(scores(vectors, negatives)[b].numpy(), negatives.numpy() @ user, rtol=1e-10)


def test_own_vectors_score_as_serving_does() -> None:
    interests, counts, _, negatives = given_interests()
    found = scores(own_vectors(interests, own_mask(counts, 3)), negatives)
    for b, own in enumerate(counts):
        v = interests[b].numpy()
        assert found[b].tolist() == pytest.approx([reference.best_match(v, e, own) for e in negatives.numpy()])


def test_foreign_interests_get_no_gradient_from_any_scoring() -> None:
    interests, counts, label, negatives = given_interests()
    own = own_mask(counts, 3)
    ids, corrections = torch.arange(10), torch.linspace(-1, 1, 6, dtype=torch.float64)
    scorings = {
        "best match": lambda v: own_vectors(v, own),
        "label attention": lambda v: label_attention_vector(v, own, label, 1.0, False),
    }
    for name, scoring in scorings.items():

        def mean_loss(v: Tensor, scoring: Any = scoring) -> Tensor:
            return sampled_softmax_loss(scoring(v), label, negatives, ids[:4], ids[4:], corrections, 0.5)

        v = interests.clone().requires_grad_()
        mean_loss(v).backward()
        assert v.grad is not None
        assert (v.grad[~own] == 0).all(), name
        assert (v.grad[own] != 0).any(), name
        assert torch.autograd.gradcheck(mean_loss, (interests.clone().requires_grad_(),)), name


# --- the gradient that is made tile by tile ---


def plain_loss(vectors: Tensor, label: Tensor, negatives: Tensor, ids: Tensor, others: Tensor, c: Tensor) -> Tensor:
    """The same by torch's own functions, everything at once."""
    logits = (vectors @ negatives.T).amax(1) / 0.3 - c
    logits = logits.masked_fill(ids.unsqueeze(1) == others, float("-inf"))
    positive = (vectors @ label.unsqueeze(-1)).squeeze(-1).amax(1, keepdim=True) / 0.3
    return functional.cross_entropy(torch.cat([positive, logits], 1), torch.zeros(len(ids), dtype=torch.int64))


@pytest.mark.parametrize("scores_at_a_time", [1, 50, 2**20])
@settings(max_examples=25, deadline=None)
@given(
    users=st.integers(1, 7),
    count=st.integers(1, 4),
    others=st.integers(1, 9),
    seed=st.integers(0, 2**16),
    equal=st.booleans(),
)
def test_loss_and_gradients_do_not_depend_on_the_tiles(
    scores_at_a_time: int, users: int, count: int, others: int, seed: int, equal: bool
) -> None:
    # given users, some of whose vectors are equal: their items tie, and share the gradient
    g = generator(seed)
    vectors = torch.randn(users, count, 4, generator=g, dtype=torch.float64)
    if equal:
        vectors[:, -1] = vectors[:, 0]
    label = torch.randn(users, 4, generator=g, dtype=torch.float64)
    negatives = torch.randn(others, 4, generator=g, dtype=torch.float64)
    ids, other_ids = torch.randint(0, 5, (users,), generator=g), torch.randint(0, 5, (others,), generator=g)
    corrections = torch.randn(others, generator=g, dtype=torch.float64)
    given_leaves = [vectors, label, negatives]
    ours, plain = ([x.clone().requires_grad_() for x in given_leaves] for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "TILE_SCORES", scores_at_a_time)
        found = sampled_softmax_loss(*ours, ids, other_ids, corrections, 0.3)
    expected = plain_loss(*plain, ids, other_ids, corrections)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_loss_takes_part_in_autocast() -> None:
    interests, counts, label, negatives = given_interests()
    leaves = [x.float().requires_grad_() for x in (own_vectors(interests, own_mask(counts, 3)), label, negatives)]
    ids = torch.arange(10)
    full = sampled_softmax_loss(*leaves, ids[:4], ids[4:], torch.zeros(6))
    with torch.autocast("cpu", torch.bfloat16):
        half = sampled_softmax_loss(*leaves, ids[:4], ids[4:], torch.zeros(6))
    half.backward()
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full.item(), rel=0.05)
    assert all(leaf.grad is not None and leaf.grad.dtype == torch.float32 for leaf in leaves)


# --- the full softmax is the exact form ---


def test_full_softmax_is_cross_entropy_over_the_catalogue_gradient_included() -> None:
    user, items, labels = given_catalogue(users=8, items=30)
    sampler = NegativeSampler(LossConfig(kind="full"), torch.ones(30))
    ours_user, ours_items = user.clone().requires_grad_(), items.clone().requires_grad_()
    negatives = sampler.draw(labels, generator())
    log_expected = sampler.log_expected_count(torch.arange(30), len(labels)).double()
    ours = loss_of(ours_user, ours_items, labels, negatives, log_expected, 0.7)
    ours.mean().backward()

    theirs_user, theirs_items = user.clone().requires_grad_(), items.clone().requires_grad_()
    theirs = functional.cross_entropy(theirs_user @ theirs_items[2:].T / 0.7, labels - 2, reduction="none")
    theirs.mean().backward()

    assert torch.allclose(ours.double(), theirs, rtol=1e-6)
    assert ours_user.grad is not None
    assert ours_items.grad is not None
    assert torch.allclose(ours_user.grad, theirs_user.grad, rtol=1e-5, atol=1e-7)
    assert torch.allclose(ours_items.grad, theirs_items.grad, rtol=1e-5, atol=1e-7)
    expected = [
        reference.full_softmax(u, items.numpy(), int(y), 0.7) for u, y in zip(user.numpy(), labels, strict=True)
    ]
    np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=1e-6)


class Recorder:
    """In a row optimiser's place: keeps the gradient of each table row, changes nothing."""

    def __init__(self, weight: Tensor):
        self.gradient = torch.zeros_like(weight)

    def update(self, weight: Tensor, rows: Tensor, grad: Tensor, learning_rate: float) -> None:
        self.gradient.index_add_(0, rows, grad)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        pass


def mean_gradient(w: World, config: LossConfig, draws: int) -> Tensor:
    """Average the gradient of the item rows in a step on one fixed batch, over seeded draws of negatives."""
    (batch,) = batches(w.sequences, size=64, steps=1)
    recorder = Recorder(w.model.item_table.weight)
    for seed in range(draws):
        # a rate that changes nothing in float32, so that every draw sees the same model
        one = trainer(w, config, OptimConfig(learning_rate=1e-30, table_learning_rate=1e-30), seed=seed)
        one.rows["items"] = recorder
        one.train_step(w.sequences, batch)
    return recorder.gradient / draws


def given_skewed_world() -> World:
    """20 items, the first by far the most popular, and one interest per user."""
    weights = 1.0 / (1 + torch.arange(20.0))
    drawn = 2 + torch.multinomial(weights, 60 * 6, replacement=True, generator=generator(1))
    return world(drawn.view(60, 6).tolist(), 22, features=False, profile=False, interests=1, residual=True)


@pytest.mark.parametrize("share", [{"uniform_negatives": 0.5, "popularity_negatives": 0.5}, {"uniform_negatives": 1.0}])
def test_with_logq_the_sampled_gradient_approaches_the_full_one_as_negatives_grow(share: dict[str, float]) -> None:
    # given the gradient of the exact softmax, and its error with more and more sampled negatives
    w = given_skewed_world()
    full = mean_gradient(w, LossConfig(kind="full"), draws=1)

    def error(negatives: int, logq: bool) -> float:
        mix: Any = {"uniform_negatives": 0, "popularity_negatives": 0}
        mix |= {name: int(part * negatives) for name, part in share.items()}
        config = LossConfig(**mix, popularity_power=1.0, logq=logq)
        return float((mean_gradient(w, config, draws=12) - full).norm() / full.norm())

    corrected = [error(n, logq=True) for n in (64, 1024, 16384)]
    # then it vanishes with the correction
    assert corrected[0] > corrected[1] > corrected[2]
    assert corrected[2] < 0.02


def test_without_logq_the_sampled_gradient_stays_wrong_however_many_negatives() -> None:
    w = given_skewed_world()
    full = mean_gradient(w, LossConfig(kind="full"), draws=1)
    config = LossConfig(uniform_negatives=0, popularity_negatives=16384, popularity_power=1.0, logq=False)
    assert (mean_gradient(w, config, draws=4) - full).norm() > 0.1 * full.norm()


def test_the_sampled_loss_approaches_the_full_loss_as_negatives_grow() -> None:
    w = given_skewed_world()
    (batch,) = batches(w.sequences, size=64, steps=1)
    still = OptimConfig(learning_rate=1e-30, table_learning_rate=1e-30)
    full = trainer(w, LossConfig(kind="full"), still).train_step(w.sequences, batch).item()
    many = LossConfig(uniform_negatives=8192, popularity_negatives=8192)
    assert trainer(w, many, still).train_step(w.sequences, batch).item() == pytest.approx(full, rel=0.02)


def test_loss_is_float32_and_finite_for_large_scores() -> None:
    user = torch.tensor([[300.0]])
    loss = loss_of(
        user, torch.tensor([[0.0], [0.0], [1.0], [-1.0]]), torch.tensor([3]), torch.tensor([2]), torch.zeros(4)
    )
    assert loss.dtype == torch.float32
    assert loss.tolist() == [600.0]

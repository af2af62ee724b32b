"""Lazy AdamW and row-wise Adagrad: one step by hand, many against the reference and torch.optim, laziness, padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core.optim import RowAdagrad, RowAdam, clip_factor
from tests.mind_core import reference
from tests.mind_core.given import generator

OPTIMISERS = [(RowAdam, reference.LazyAdamW), (RowAdagrad, reference.RowwiseAdagrad)]


def test_adams_first_step_is_the_learning_rate_along_the_gradients_sign() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, -1.0], [5.0, 5.0]])
    RowAdam(weight).update(weight, torch.tensor([1]), torch.tensor([[3.0, -0.2]]), learning_rate=0.1)
    assert torch.allclose(weight, torch.tensor([[0.0, 0.0], [0.9, -0.9], [5.0, 5.0]]), atol=1e-6)


def test_adagrads_first_step_is_the_gradient_over_its_root_mean_square() -> None:
    weight = torch.zeros(2, 2)
    RowAdagrad(weight).update(weight, torch.tensor([1]), torch.tensor([[3.0, 4.0]]), learning_rate=0.1)
    assert torch.allclose(weight[1], -0.1 * torch.tensor([3.0, 4.0]) / math.sqrt(12.5))


@pytest.mark.parametrize("kind", [RowAdam, RowAdagrad])
def test_decay_is_decoupled_and_applied_when_the_row_is_touched(kind: type[RowAdam] | type[RowAdagrad]) -> None:
    # given a zero gradient, only the decay moves the touched row: 1 - rate * decay
    weight = torch.ones(3, 2)
    kind(weight, weight_decay=0.5).update(weight, torch.tensor([1]), torch.zeros(1, 2), learning_rate=0.1)
    assert torch.allclose(weight[1], torch.full((2,), 0.95))
    assert torch.equal(weight[2], torch.ones(2))


@pytest.mark.parametrize("kind", [RowAdam, RowAdagrad])
def test_no_rows_means_no_change(kind: type[RowAdam] | type[RowAdagrad]) -> None:
    weight = torch.ones(3, 2)
    kind(weight).update(weight, torch.zeros(0).long(), torch.zeros(0, 2), learning_rate=0.1)
    assert torch.equal(weight, torch.ones(3, 2))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_on_all_rows_at_every_step_is_torchs_adamw(weight_decay: float) -> None:
    # given a table whose rows 1 to 5 are touched at every step (row 0 is padding)
    g = generator(1)
    weight = torch.randn(6, 4, generator=g)
    dense = torch.nn.Parameter(weight[1:].clone())
    ours = RowAdam(weight, weight_decay)
    theirs = torch.optim.AdamW([dense], lr=1.0, weight_decay=weight_decay)
    for step in range(60):
        gradient = torch.randn(5, 4, generator=g) * 10.0 ** (step % 5 - 3)
        rate = 0.01 / (1 + step)
        ours.update(weight, torch.arange(1, 6), gradient, rate)
        dense.grad = gradient.clone()
        theirs.param_groups[0]["lr"] = rate
        theirs.step()
    assert torch.allclose(weight[1:], dense, rtol=1e-5, atol=1e-6)


def test_adam_forgets_nothing_of_a_row_that_rests() -> None:
    # given a row touched at steps 0 and 100, and one touched at two consecutive steps
    weight = torch.ones(3, 2)
    optimiser = RowAdam(weight)
    for gradient, steps in ((1.0, [[1, 2], []]), (0.5, [[2]] + [[]] * 98 + [[1]])):
        for rows in steps:
            optimiser.update(weight, torch.tensor(rows).long(), torch.full((len(rows), 2), gradient), 0.1)
    # then both have seen the same: an untouched row neither drifts nor decays
    assert torch.equal(weight[1], weight[2])


@pytest.mark.parametrize(("kind", "oracle"), OPTIMISERS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 8), dim=st.integers(1, 5), decay=st.sampled_from([0.0, 0.2]))
def test_any_pattern_of_touched_rows_equals_the_reference(
    kind: type[RowAdam] | type[RowAdagrad],
    oracle: type[reference.LazyAdamW] | type[reference.RowwiseAdagrad],
    seed: int,
    rows: int,
    dim: int,
    decay: float,
) -> None:
    g = generator(seed)
    weight = torch.randn(rows, dim, generator=g)
    ours, theirs = kind(weight, decay), oracle(weight.double().numpy(), decay)
    for _ in range(12):
        touched = 1 + (torch.rand(rows - 1, generator=g) < 0.5).nonzero().squeeze(1)  # row 0 is padding
        gradient = torch.randn(len(touched), dim, generator=g)
        untouched = torch.ones(rows).bool().index_fill_(0, touched, False)
        before = weight.clone()
        ours.update(weight, touched, gradient, 0.05)
        theirs.update(touched.tolist(), gradient.double().numpy(), 0.05)
        assert torch.equal(weight[untouched], before[untouched])
    np.testing.assert_allclose(weight.numpy(), theirs.weight, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", [RowAdam, RowAdagrad])
def test_a_rows_update_is_the_same_bits_whichever_rows_stand_beside_it(
    kind: type[RowAdam] | type[RowAdagrad], weight_decay: float
) -> None:
    # given all rows updated together, and in two shards of every second row
    g = generator(3)
    together = torch.randn(101, 12, generator=g)
    shards = [together[rank::2].clone() for rank in range(2)]
    whole, parts = kind(together, weight_decay), [kind(shard, weight_decay) for shard in shards]
    if kind is RowAdam:  # ... of a long training
        updates = torch.randint(0, 3000, (101,), generator=g)
        for rank, each in enumerate((whole, *parts), start=-1):
            each.state_dict()["updates"].copy_(updates if rank < 0 else updates[rank::2])
    for _ in range(8):
        rows = (torch.rand(101, generator=g) < 0.6).nonzero().squeeze(1)
        gradient = torch.randn(len(rows), 12, generator=g)
        whole.update(together, rows, gradient.clone(), 0.03)
        for rank in range(2):
            own = rows % 2 == rank
            parts[rank].update(shards[rank], rows[own] // 2, gradient[own], 0.03)
    for rank in range(2):
        assert torch.equal(together[rank::2], shards[rank])


@pytest.mark.parametrize("kind", [RowAdam, RowAdagrad])
def test_restored_state_goes_on_bit_for_bit(kind: type[RowAdam] | type[RowAdagrad]) -> None:
    g = generator(2)
    weight = torch.randn(4, 3, generator=g)
    optimiser = kind(weight)
    optimiser.update(weight, torch.tensor([1, 3]), torch.randn(2, 3, generator=g), 0.1)
    copy, restored = weight.clone(), kind(weight)
    restored.load_state_dict({name: value.clone() for name, value in optimiser.state_dict().items()})
    gradient = torch.randn(3, 3, generator=g)
    optimiser.update(weight, torch.tensor([1, 2, 3]), gradient, 0.1)
    restored.update(copy, torch.tensor([1, 2, 3]), gradient, 0.1)
    assert torch.equal(weight, copy)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20), st.floats(1e-3, 1e4))
def test_the_clip_factor_brings_the_norm_to_the_bound_and_never_above_one(values: list[float], most: float) -> None:
    gradient = torch.tensor(values)
    for parts in (([gradient], []), ([], [gradient]), ([gradient[:1]], [gradient[1:]])):
        factor = clip_factor(*parts, most)
        assert 0 <= float(factor) <= 1
        norm = float((gradient.double() * factor.double()).norm())
        assert norm <= most * (1 + 1e-5)
        assert float(factor) == 1 or norm == pytest.approx(most, rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_not_hidden_by_clipping(bad: float) -> None:
    gradient = torch.tensor([1.0, bad])
    assert not torch.isfinite(gradient * clip_factor([gradient], [], 1.0)).all()

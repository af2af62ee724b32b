"""Shared negatives: what is drawn, how often, and that logQ is the log of exactly that."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mind_core.config import LossConfig
from mind_core.negatives import NegativeSampler
from tests.mind_core import reference
from tests.mind_core.given import generator

# six real items behind padding and unknown; item 4 was never seen, item 7 is the most popular
COUNTS = torch.tensor([0, 0, 1, 2, 0, 4, 9, 64])
ITEMS = torch.arange(2, 8)
COLD = torch.arange(8) == 4

MIXES = {
    "uniform": LossConfig(uniform_negatives=30, popularity_negatives=0),
    "popularity": LossConfig(uniform_negatives=0, popularity_negatives=30, popularity_power=0.5),
    "popularity, power 1": LossConfig(uniform_negatives=0, popularity_negatives=30, popularity_power=1.0),
    "in-batch": LossConfig(uniform_negatives=0, popularity_negatives=0, in_batch=True),
    "uniform and popularity": LossConfig(uniform_negatives=10, popularity_negatives=20, popularity_power=0.75),
    "all three": LossConfig(uniform_negatives=5, popularity_negatives=10, popularity_power=0.5, in_batch=True),
}
BATCH = 16


def draw_labels(g: torch.Generator) -> Tensor:
    return torch.multinomial(COUNTS.double(), BATCH, replacement=True, generator=g)


@pytest.mark.parametrize("cold", [None, COLD], ids=["no cold items", "a cold item"])
@pytest.mark.parametrize("mix", MIXES)
def test_expected_count_is_the_frequency_really_drawn(mix: str, cold: Tensor | None) -> None:
    # given many draws, each for a batch whose labels follow the counts
    sampler, g, draws = NegativeSampler(MIXES[mix], COUNTS, cold=cold), generator(7), 4000
    drawn = torch.zeros(len(COUNTS), dtype=torch.float64)
    for _ in range(draws):
        drawn += torch.bincount(sampler.draw(draw_labels(g), g), minlength=len(COUNTS))
    # when compared with what logQ corrects for
    expected = sampler.log_expected_count(ITEMS, BATCH).double().exp()
    # then every item's mean count is within five standard errors (counts are nearly Poisson); never-drawn is 0
    error = 5 * (expected / draws).sqrt() + 1e-9
    assert ((drawn[2:] / draws - expected).abs() <= error).all()
    assert drawn[:2].sum() == 0, "padding and unknown are never negatives"
    assert cold is None or drawn[cold].sum() == 0


@pytest.mark.parametrize("mix", MIXES)
def test_expected_count_equals_the_formula(mix: str) -> None:
    config = MIXES[mix]
    labels = torch.tensor([0, 0, 3, 1, 1, 1, 2, 8])
    sampler = NegativeSampler(config, COUNTS, labels)
    seen = [i for i in ITEMS.tolist() if COUNTS[i] > 0]
    expected = [
        reference.log_expected_count(
            item,
            COUNTS.double().numpy(),
            labels.double().numpy(),
            uniform=config.uniform_negatives,
            popular=config.popularity_negatives,
            alpha=config.popularity_power,
            in_batch=BATCH if config.in_batch else 0,
        )
        for item in seen
    ]
    np.testing.assert_allclose(sampler.log_expected_count(torch.tensor(seen), BATCH).numpy(), expected, atol=1e-5)


def test_expected_counts_of_the_catalogue_add_up_to_the_number_of_negatives() -> None:
    sampler = NegativeSampler(MIXES["all three"], COUNTS)
    assert sampler.log_expected_count(ITEMS, BATCH).exp().sum().item() == pytest.approx(5 + 10 + BATCH, rel=1e-5)


def test_popularity_by_hand() -> None:
    # power 0.5 of the counts 1, 2, 0, 4, 9, 64: 1, 1.41, 0, 2, 3, 8
    config = LossConfig(uniform_negatives=0, popularity_negatives=1, popularity_power=0.5)
    sampler = NegativeSampler(config, COUNTS)
    total = 1 + math.sqrt(2) + 2 + 3 + 8
    logs = sampler.log_expected_count(torch.tensor([2, 7]), 1)
    assert logs.tolist() == pytest.approx([math.log(1 / total), math.log(8 / total)], abs=1e-6)


def test_power_zero_is_uniform_over_the_catalogue() -> None:
    config = LossConfig(uniform_negatives=0, popularity_negatives=6, popularity_power=0.0)
    sampler = NegativeSampler(config, COUNTS)
    assert torch.allclose(sampler.log_expected_count(ITEMS, 1), torch.zeros(6), atol=1e-6)
    drawn = torch.cat([sampler.draw(ITEMS[:1], generator(i)) for i in range(50)])
    assert set(drawn.tolist()) == set(ITEMS.tolist())


def test_an_item_without_events_is_never_drawn_by_popularity() -> None:
    sampler = NegativeSampler(MIXES["popularity"], COUNTS)
    drawn = torch.cat([sampler.draw(ITEMS[:1], generator(i)) for i in range(200)])
    assert set(drawn.tolist()) == {2, 3, 5, 6, 7}


def test_an_item_that_cannot_be_drawn_has_a_finite_correction() -> None:
    assert NegativeSampler(MIXES["popularity"], COUNTS).log_expected_count(torch.tensor([0, 1, 4]), 1).isfinite().all()


# --- cold items ---


def test_cold_items_are_never_drawn_and_the_uniform_share_is_of_the_others() -> None:
    config = LossConfig(uniform_negatives=10, popularity_negatives=0)
    sampler = NegativeSampler(config, COUNTS, cold=COLD)
    assert set(torch.cat([sampler.draw(ITEMS[:1], generator(i)) for i in range(100)]).tolist()) == {2, 3, 5, 6, 7}
    assert sampler.log_expected_count(ITEMS[ITEMS != 4], 1).tolist() == pytest.approx([math.log(10 / 5)] * 5, abs=1e-6)


def test_power_zero_leaves_cold_items_out() -> None:
    config = LossConfig(uniform_negatives=0, popularity_negatives=5, popularity_power=0.0)
    sampler = NegativeSampler(config, COUNTS, cold=COLD)
    assert torch.allclose(sampler.log_expected_count(ITEMS[ITEMS != 4], 1), torch.zeros(5), atol=1e-6)
    assert 4 not in torch.cat([sampler.draw(ITEMS[:1], generator(i)) for i in range(100)])


def test_full_is_every_item_but_the_cold() -> None:
    sampler = NegativeSampler(LossConfig(kind="full"), COUNTS, cold=COLD)
    assert sampler.draw(torch.tensor([5]), generator()).tolist() == [2, 3, 5, 6, 7]


def test_without_cold_items_the_uniform_draws_are_those_of_the_whole_range() -> None:
    """Runs on datasets without cold items repeat what they drew before there were any."""
    config = LossConfig(uniform_negatives=50, popularity_negatives=0)
    drawn = NegativeSampler(config, COUNTS, cold=torch.zeros(8).bool()).draw(ITEMS, generator(3))
    assert torch.equal(drawn, torch.randint(0, 6, (50,), generator=generator(3)) + 2)


def test_a_catalogue_of_cold_items_is_refused() -> None:
    with pytest.raises(ValueError, match="every item is cold"):
        NegativeSampler(LossConfig(), torch.zeros(4), cold=torch.tensor([False, False, True, True]))


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any),
    power=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
    in_batch=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_draws_and_expected_counts_are_those_of_a_catalogue_without_the_cold_items(
    counts: list[int], power: float, in_batch: bool, seed: int
) -> None:
    config = LossConfig(uniform_negatives=20, popularity_negatives=20, popularity_power=power, in_batch=in_batch)
    every = torch.tensor([0, 0, *counts])
    cold = (every == 0) & (torch.arange(len(every)) >= 2)
    warm = (~cold).nonzero().squeeze(1)  # place in the smaller catalogue -> item index
    sampler, smaller = NegativeSampler(config, every, cold=cold), NegativeSampler(config, every[warm])
    labels = torch.randint(2, len(warm), (BATCH,), generator=generator(seed))
    drawn = sampler.draw(warm[labels], generator(seed))
    assert torch.equal(drawn, warm[smaller.draw(labels, generator(seed))])
    assert not cold[drawn].any()
    expected = sampler.log_expected_count(warm[2:], BATCH)
    assert torch.equal(expected, smaller.log_expected_count(torch.arange(2, len(warm)), BATCH))
    total = 20 + 20 + (BATCH if in_batch else 0)
    assert sampler.log_expected_count(torch.arange(2, len(every)), BATCH).exp().sum().item() == pytest.approx(
        total, rel=1e-5
    )


def test_in_batch_negatives_are_the_batchs_labels_after_the_drawn_ones() -> None:
    labels = torch.tensor([5, 7, 7])
    drawn = NegativeSampler(MIXES["all three"], COUNTS).draw(labels, generator())
    assert len(drawn) == 5 + 10 + 3
    assert drawn[-3:].tolist() == [5, 7, 7]


def test_auto_is_full_where_few_items_can_be_negatives_and_sampled_where_many(monkeypatch: pytest.MonkeyPatch) -> None:
    few = len(COUNTS) - 2 - int(COLD.sum())
    for most, kind in ((few, "full"), (few - 1, "sampled")):
        monkeypatch.setattr("mind_core.config.MOST_FULL", most)
        made = NegativeSampler(LossConfig(kind="auto"), COUNTS, cold=COLD)
        plain = NegativeSampler(LossConfig(kind=kind), COUNTS, cold=COLD)  # type: ignore[arg-type]
        drawn = [each.draw(torch.tensor([3]), torch.Generator().manual_seed(0)) for each in (made, plain)]
        assert torch.equal(*drawn)
        assert torch.equal(*(each.log_expected_count(drawn[0], 1) for each in (made, plain)))


def test_full_is_every_real_item_once_without_correction() -> None:
    sampler = NegativeSampler(LossConfig(kind="full"), COUNTS)
    assert sampler.draw(torch.tensor([5]), generator()).tolist() == ITEMS.tolist()
    assert torch.equal(sampler.log_expected_count(ITEMS, BATCH), torch.zeros(6))


def test_without_logq_there_is_no_correction() -> None:
    config = LossConfig(uniform_negatives=3, popularity_negatives=3, in_batch=True, logq=False)
    assert torch.equal(NegativeSampler(config, COUNTS).log_expected_count(ITEMS, BATCH), torch.zeros(6))


def test_the_generator_alone_decides_what_is_drawn() -> None:
    sampler, labels = NegativeSampler(MIXES["uniform and popularity"], COUNTS), ITEMS[:2]
    torch.manual_seed(1)
    first = sampler.draw(labels, generator(1))
    torch.manual_seed(2)
    assert torch.equal(sampler.draw(labels, generator(1)), first)
    assert not torch.equal(sampler.draw(labels, generator(2)), first)

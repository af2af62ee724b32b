"""Shared negatives: what is drawn, how often, and that logQ is the log of exactly that."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mind_core.config import LossConfig
from mind_core.negatives import NegativeSampler
from tests.mind_core import reference
from tests.mind_core.given import generator

# six real items behind padding and unknown; item 4 was never seen, item 7 is the most popular
COUNTS = torch.tensor([0, 0, 1, 2, 0, 4, 9, 64])
ITEMS = torch.arange(2, 8)

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


@pytest.mark.parametrize("mix", MIXES)
def test_expected_count_is_the_frequency_really_drawn(mix: str) -> None:
    # given many draws, each for a batch whose labels follow the counts
    sampler, g, draws = NegativeSampler(MIXES[mix], COUNTS), generator(7), 4000
    drawn = torch.zeros(len(COUNTS), dtype=torch.float64)
    for _ in range(draws):
        drawn += torch.bincount(sampler.draw(draw_labels(g), g), minlength=len(COUNTS))
    # when compared with what logQ corrects for
    expected = sampler.log_expected_count(ITEMS, BATCH).double().exp()
    # then every item's mean count is within five standard errors (counts are nearly Poisson); never-drawn is 0
    error = 5 * (expected / draws).sqrt() + 1e-9
    assert ((drawn[2:] / draws - expected).abs() <= error).all()
    assert drawn[:2].sum() == 0, "padding and unknown are never negatives"


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


def test_in_batch_negatives_are_the_batchs_labels_after_the_drawn_ones() -> None:
    labels = torch.tensor([5, 7, 7])
    drawn = NegativeSampler(MIXES["all three"], COUNTS).draw(labels, generator())
    assert len(drawn) == 5 + 10 + 3
    assert drawn[-3:].tolist() == [5, 7, 7]


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

"""The whole forward pass against the reference, initial weights, options, and profiles."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mind_core.config import ModelConfig
from mind_core.model import MIND, UserEncoder
from mind_core.repeats import TRAITS
from mind_core.routing import item_logits
from tests.mind_core import reference
from tests.mind_core.given import batches, generator, model_config, prefix_mask, random_sequences, trainer, world


def weights_of(encoder: UserEncoder) -> tuple[list[tuple[np.ndarray, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    layers = [
        (layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in [*encoder.hidden, encoder.output]
    ]
    return layers[:-1], layers[-1]


def model_of(**changes: object) -> MIND:
    return MIND(model_config(**changes), 12, [], [])


def expected_interests(
    encoder: UserEncoder, config: ModelConfig, behaviours: Tensor, length: int, profile: Tensor
) -> tuple[np.ndarray, int]:
    """One user's v (K, d) and K'_u by the reference; behaviours (L, d), the first `length` of them real."""
    x = behaviours.numpy()
    importance = [1.0] * len(x)
    if config.recency:
        importance[:length] = [math.exp(encoder.recency[length - 1 - i].item()) for i in range(length)]
    own = reference.adaptive_interest_count(length, config.interests) if config.adaptive_interests else config.interests
    capsules, _ = reference.b2i_routing(
        x @ encoder.shared_map.detach().numpy(),
        [i < length for i in range(len(x))],
        own,
        encoder.routing_logits[:, : len(x)].numpy(),
        config.iterations,
        config.routing_scale,
        config.routing_update == "cosine",
        importance,
    )
    v = reference.interests_from_capsules(capsules, profile.numpy(), *weights_of(encoder))
    v = v + capsules if config.residual else v
    return (v / np.linalg.norm(v, axis=1, keepdims=True) if config.normalize_interests else v), own


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"residual": True, "recency": True, "normalize_interests": True}, {"hidden": ()}]
)
def test_interests_equal_the_float64_reference(iterations: int, adaptive: bool, options: dict[str, object]) -> None:
    # given users with no, few and many behaviours, each with a profile of two features
    config = model_config(iterations=iterations, adaptive_interests=adaptive, routing_scale=1.5, **options)
    encoder = UserEncoder(config, profile_features=2).double()
    if config.recency:
        torch.nn.init.normal_(encoder.recency, std=0.5, generator=generator(4))
    lengths = [0, 1, 3, 5, 8]
    behaviours = torch.randn(5, 8, 8, generator=generator(2), dtype=torch.float64)
    profile = torch.randn(5, 8, generator=generator(3), dtype=torch.float64)
    # when
    with torch.no_grad():
        interests, own, _ = encoder(behaviours, prefix_mask(lengths, 8), profile)
    # then
    for b, length in enumerate(lengths):
        v, count = expected_interests(encoder, config, behaviours[b], length, profile[b])
        assert own[b].tolist() == [j < count for j in range(config.interests)]
        np.testing.assert_allclose(interests[b, :count].numpy(), v[:count], rtol=1e-6, atol=1e-8)


def test_the_mean_encoder_is_an_mlp_over_mean_pooled_behaviours() -> None:
    config = model_config(encoder="mean", interests=1)
    encoder = UserEncoder(config, profile_features=1).double()
    behaviours = torch.randn(2, 3, 8, generator=generator(1), dtype=torch.float64)
    profile = torch.randn(2, 4, generator=generator(2), dtype=torch.float64)
    with torch.no_grad():
        interests, own, _ = encoder(behaviours, prefix_mask([3, 2], 3), profile)
    assert own.tolist() == [[True], [True]]
    for b, length in enumerate([3, 2]):
        pooled = behaviours[b, :length].mean(0, keepdim=True).numpy()
        v = reference.interests_from_capsules(pooled, profile[b].numpy(), *weights_of(encoder))
        np.testing.assert_allclose(interests[b].numpy(), v, rtol=1e-5)


def test_the_last_layer_is_linear_so_that_interests_may_be_negative() -> None:
    encoder = UserEncoder(model_config(), 0)
    with torch.no_grad():
        interests, _, _ = encoder(torch.randn(20, 8, 8, generator=generator()), prefix_mask([8] * 20, 8), None)
    assert (interests < 0).any()


def test_every_profile_feature_reaches_every_interest() -> None:
    encoder = UserEncoder(model_config(), 2).double()
    profile = torch.zeros(1, 8, dtype=torch.float64, requires_grad=True)
    behaviours = torch.randn(1, 8, 8, generator=generator(), dtype=torch.float64)
    interests, _, _ = encoder(behaviours, prefix_mask([8], 8), profile)
    for j in range(3):
        (gradient,) = torch.autograd.grad(interests[0, j].abs().sum(), profile, retain_graph=True)
        assert (gradient[0, :4] != 0).any()
        assert (gradient[0, 4:] != 0).any()


def test_recency_weighs_a_behaviour_by_its_rank_from_the_newest_shown() -> None:
    # given weights 1, 2, 4, ... by rank, behaviours of 3, 9, 5, and padding of 7; the 9 is hidden by dropout
    encoder = UserEncoder(model_config(encoder="mean", interests=1, recency=True, hidden=()), 0)
    with torch.no_grad():
        encoder.recency.copy_(torch.arange(8.0).unsqueeze(1) * math.log(2))
        encoder.output.weight.copy_(torch.eye(8))
        encoder.output.bias.zero_()
        behaviours = torch.tensor([3.0, 9.0, 5.0, 7.0]).view(1, 4, 1).expand(1, 4, 8)
        interests, _, _ = encoder(behaviours, torch.tensor([[True, False, True, False]]), None)
    # then the 3 has rank 1 and the 5 rank 0
    assert interests[0, 0].tolist() == pytest.approx([(2 * 3 + 5) / 2] * 8)


def test_recency_never_starts_by_favouring_older_behaviours_and_is_trained() -> None:
    w = world(random_sequences(20, 30, 8), 30, recency=True)
    before = w.model.encoder.recency.detach().clone()
    assert (before.diff(dim=0) <= 0).all()
    trainer(w).train_step(w.sequences, batches(w.sequences, 8, 1)[0])
    assert not torch.equal(w.model.encoder.recency, before)


# --- initial weights ---


def initial(seed: int, logits_seed: int) -> dict[str, Tensor]:
    w = world([[2, 3], [4]], 9, seed=seed, logits_seed=logits_seed, recency=True)
    return {name: value.clone() for name, value in w.model.state_dict().items()}


def test_the_same_seeds_give_the_same_weights_whatever_the_global_generator() -> None:
    torch.manual_seed(1)
    first = initial(0, 0)
    torch.manual_seed(2)
    second = initial(0, 0)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_building_a_model_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    initial(0, 0)
    assert torch.equal(torch.rand(1), expected)


def test_the_seed_decides_all_initial_weights_but_the_routing_logits() -> None:
    first, second = initial(0, 0), initial(1, 0)
    same = {name for name in first if torch.equal(first[name], second[name])}
    assert same == {"encoder.routing_logits", "encoder.recency", "encoder.shared_map"}, "the last two from no draw"


def test_the_logits_seed_decides_the_routing_logits_only() -> None:
    first, second = initial(0, 0), initial(0, 1)
    differ = {name for name in first if not torch.equal(first[name], second[name])}
    assert differ == {"encoder.routing_logits"}


def test_routing_logits_are_saved_have_spread_sigma_and_are_not_trained() -> None:
    model = MIND(model_config(interests=8, max_history=500, sigma=0.5), 5, [], [])
    assert "encoder.routing_logits" in model.state_dict()
    assert "encoder.routing_logits" not in dict(model.named_parameters())
    assert model.encoder.routing_logits.shape == (8, 500)
    assert model.encoder.routing_logits.std().item() == pytest.approx(0.5, rel=0.05)


def test_one_shared_map_of_d_by_d_serves_all_behaviours_and_interests() -> None:
    assert MIND(model_config(), 5, [], []).encoder.shared_map.shape == (8, 8)


def shown(*lengths: int) -> torch.Tensor:
    return torch.ones(len(lengths), max(lengths), dtype=torch.bool)


def test_item_logits_order_items_alike_wherever_they_stand_and_with_whom() -> None:
    encoder = model_of(initial_logits="item", interests=3).encoder
    items = torch.randn(5, 8, generator=generator())
    here = encoder.initial_logits(items[None, [0, 1, 2, 3]], shown(4))[0]
    there = encoder.initial_logits(items[None, [4, 3, 0]], shown(3))[0]
    ratio = (here[:, 0] - here[:, 3]) / (there[:, 2] - there[:, 1])
    torch.testing.assert_close(ratio, ratio[:1].expand(3))
    assert (ratio > 0).all()


@pytest.mark.parametrize("common", [0.0, 2.0, 10.0])
def test_item_logits_have_deviation_sigma_however_alike_the_items_are(common: float) -> None:
    encoder = model_of(initial_logits="item", interests=3, dim=64, sigma=0.7).encoder
    items = torch.randn(40, 60, 64, generator=generator()) + common
    logits = encoder.initial_logits(items, shown(*[60] * 40))
    assert logits.std().item() == pytest.approx(0.7, rel=0.1)


def test_equal_behaviours_have_equal_logits_near_zero() -> None:
    encoder = model_of(initial_logits="item", interests=3).encoder
    logits = encoder.initial_logits(torch.randn(1, 1, 8, generator=generator()).expand(1, 6, 8), shown(6))
    torch.testing.assert_close(logits, torch.zeros(1, 3, 6), rtol=0, atol=1e-3)


def test_what_all_behaviours_have_in_common_sends_none_anywhere() -> None:
    encoder = model_of(initial_logits="item", interests=3).encoder
    items = torch.nn.functional.normalize(torch.randn(1, 9, 8, generator=generator()) + 5, dim=-1)
    mask = torch.tensor([[True] * 7 + [False] * 2])
    logits = encoder.initial_logits(items, mask)
    torch.testing.assert_close(logits.sum(2), torch.zeros(1, 3), rtol=0, atol=1e-4)
    assert not logits[..., 7:].any()
    assert (logits[0, :, :7].argmax(0).bincount(minlength=3) < 7).all()


def test_behaviours_without_a_direction_shorten_the_mean_that_is_taken_off() -> None:
    items = torch.randn(1, 6, 8, generator=generator())
    mask, directions = torch.tensor([[True] * 4 + [False] * 2]), torch.eye(3, 8)
    unit = torch.nn.functional.normalize(items[0, :4].double(), dim=-1)
    mean = unit.sum(0) / (4 + 2.5)
    expected = 0.7 * 8**0.5 * (unit - mean) @ directions.double().T / (1 - mean @ mean).sqrt()
    logits = item_logits(items, mask, directions, 0.7, pseudocount=2.5)
    torch.testing.assert_close(logits[0, :, :4].double(), expected.T, rtol=1e-5, atol=1e-5)
    assert not logits[..., 4:].any()


def test_one_event_more_changes_the_logits_of_a_short_history_less_with_a_pseudocount() -> None:
    items = torch.randn(1, 6, 8, generator=generator())

    def change(pseudocount: float) -> float:
        five, six = (item_logits(items[:, :n], shown(n), torch.eye(3, 8), 1.0, pseudocount)[..., :5] for n in (5, 6))
        return float((five - six).abs().max())

    assert change(8.0) < 0.5 * change(0.0)


def test_item_logits_of_a_window_that_several_samples_share_are_those_of_each_alone() -> None:
    encoder = model_of(initial_logits="item", interests=3).encoder
    windows = torch.randn(2, 5, 8, generator=generator())
    mask = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    together = encoder.initial_logits(windows, mask)
    for sample in range(4):
        alone = encoder.initial_logits(windows[None, sample // 2], mask[None, sample])
        torch.testing.assert_close(together[sample : sample + 1], alone, rtol=1e-4, atol=1e-4)


def test_item_logits_have_spread_sigma_and_directions_at_right_angles() -> None:
    encoder = model_of(initial_logits="item", interests=4, dim=64, sigma=0.7).encoder
    directions = encoder.directions
    torch.testing.assert_close(directions @ directions.T, torch.eye(4))
    logits = encoder.initial_logits(torch.randn(50, 200, 64, generator=generator()), shown(*[200] * 50))
    assert logits.std().item() == pytest.approx(0.7, rel=0.05)
    assert "encoder.directions" in model_of(initial_logits="item").state_dict()


def test_more_interests_than_dimensions_have_directions_of_norm_one() -> None:
    directions = model_of(initial_logits="item", interests=9).encoder.directions
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(9))


@pytest.mark.parametrize("normalize", [False, True])
def test_with_a_closed_gate_every_interest_is_the_vector_that_they_share(normalize: bool) -> None:
    encoder = model_of(shared=True, normalize_interests=normalize, recency=True).encoder
    behaviours, mask = torch.randn(2, 8, 8, generator=generator()), prefix_mask([8, 3], 8)
    apart = encoder(behaviours, mask, None)[0]
    with torch.no_grad():
        encoder.gate.zero_()
    vectors = encoder(behaviours, mask, None)[0]
    assert not torch.allclose(apart[:, 0], apart[:, 1])
    torch.testing.assert_close(vectors[:, 0], vectors[:, 1])
    # and it is what the encoder without routing makes of the same behaviours
    mean = model_of(encoder="mean", interests=1, normalize_interests=normalize, recency=True).encoder
    mean.load_state_dict({name: value for name, value in encoder.state_dict().items() if name in mean.state_dict()})
    torch.testing.assert_close(vectors[:, :1], mean(behaviours, mask, None)[0])


def test_traits_weigh_distinct_behaviours_once_they_are_learned() -> None:
    encoder = model_of(encoder="mean", interests=1, history="distinct").encoder
    behaviours, mask = torch.eye(8)[None, :2], prefix_mask([2], 2)
    traits = torch.zeros(1, 2, len(TRAITS))
    traits[0, 1, 0] = math.log(9)
    plain = encoder(behaviours, mask, None, traits=traits)[0]
    torch.testing.assert_close(plain, encoder(behaviours, mask, None, traits=torch.zeros_like(traits))[0])
    with torch.no_grad():
        encoder.weight_of_traits.weight[0, 0] = 1.0
    weighted = encoder(behaviours, mask, None, traits=traits)[0]
    expected = encoder(behaviours * torch.tensor([1.0, 9.0]).view(1, 2, 1), mask, None, traits=torch.zeros_like(traits))
    torch.testing.assert_close(weighted, expected[0])


@pytest.mark.parametrize("normalize", [True, False])
def test_items_are_normalised_where_they_are_scored_if_the_model_says_so(normalize: bool) -> None:
    vectors = torch.tensor([[3.0, 4.0] * 4, [0.0] * 8])
    scored = MIND(model_config(normalize_items=normalize), 5, [], []).score_vectors(vectors)
    assert torch.allclose(scored, vectors / 10 if normalize else vectors)  # the vector of zeros stays: no NaN


# --- configuration ---


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 0),
        ("interests", 0),
        ("iterations", 0),
        ("sigma", 0.0),
        ("routing_scale", -1.0),
        ("attention_power", -0.5),
        ("temperature", 0.0),
        ("hidden", (0,)),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        model_config(**{field: value})


def test_single_vector_encoders_refuse_several_interests() -> None:
    for encoder, interests in itertools.product(("mean", "popularity"), (2, 4)):
        with pytest.raises(ValueError, match="interests"):
            model_config(encoder=encoder, interests=interests)


def test_random_sequences_of_the_tests_are_what_they_say() -> None:
    assert all(2 <= len(x) <= 5 and min(x) >= 2 and max(x) < 9 for x in random_sequences(50, 9, 5))

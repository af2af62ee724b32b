"""One test per row of algorithm.md, section 4: mistakes found in public implementations of MIND and its kin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mind_core.attention import label_aware_attention
from mind_core.config import LossConfig, OptimConfig
from mind_core.evaluation import Targets, evaluate
from mind_core.hits import merge_interests
from mind_core.inference import MINDRetriever, recommend
from mind_core.metrics import user_metrics
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.routing import adaptive_interest_count, b2i_routing, coupling
from mind_core.search import Catalogue, search
from mind_core.sequences import View, full_histories, windows
from mind_core.training import Trainer, seeded
from tests.mind_core import reference
from tests.mind_core.given import (
    World,
    all_targets,
    batches,
    generator,
    model_config,
    own_mask,
    prefix_mask,
    random_sequences,
    sequences_of,
    trainer,
    world,
)


def given_retriever(**changes: Any) -> tuple[World, MINDRetriever]:
    w = world(random_sequences(40, 60, 14, shortest=1), 60, **changes)
    return w, MINDRetriever.of(w.model, w.bags)


def interests_of(w: World, retriever: MINDRetriever) -> tuple[Tensor, Tensor]:
    return retriever.interests(full_histories(w.sequences, torch.arange(len(w.sequences)), w.model.view))


def test_routing_softmax_is_over_interests_not_behaviours() -> None:
    """Softmax over the sequence instead of over interests (torch-rechub, pytorch_ComiRec, REMI, fun-rec, PaddleRec)."""
    # given one interest and three behaviours: each hands out all it has, 1, where a softmax over behaviours gives 1/3
    weights = coupling(torch.zeros(1, 1, 3), torch.ones(1, 3).bool(), torch.ones(1, 1).bool())
    assert weights.tolist() == [[[1.0, 1.0, 1.0]]]
    # and in every iteration, for several interests, the sum over interests is 1 (over behaviours it is not)
    mapped = torch.randn(2, 5, 4, generator=generator(1))
    logits = torch.randn(3, 5, generator=generator(2))
    for iterations in (1, 2, 3):
        _, weights = b2i_routing(mapped, torch.ones(2, 5).bool(), torch.ones(2, 3).bool(), logits, iterations)
        assert torch.allclose(weights.sum(1), torch.ones(2, 5), atol=1e-6)
        assert not torch.allclose(weights.sum(2), torch.ones(2, 3), atol=1e-2)


def test_routing_logits_are_accumulated_not_replaced_nor_mixed_with_probabilities() -> None:
    """Logits replaced by, or mixed with, probabilities instead of accumulated (TorchEasyRec, EasyRec)."""
    # given one behaviour e = 2 and logits 0, 1; by hand: b <- b + u . e, with u = squash(w e)
    b = [0.0, 1.0]
    for _ in range(2):
        w = [1 / (1 + math.exp(b[1] - b[0])), 1 / (1 + math.exp(b[0] - b[1]))]
        b = [b[j] + 2 * (2 * w[j]) ** 2 / (1 + (2 * w[j]) ** 2) for j in range(2)]
    expected = [1 / (1 + math.exp(b[1] - b[0])), 1 / (1 + math.exp(b[0] - b[1]))]
    _, weights = b2i_routing(
        torch.full((1, 1, 1), 2.0), torch.ones(1, 1).bool(), torch.ones(1, 2).bool(), torch.tensor([[0.0], [1.0]]), 3
    )
    assert weights.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_a_users_vectors_are_the_same_on_every_call_and_after_saving() -> None:
    """Fresh random logits at inference; user vectors change per call (DeepMatch, torch-rechub, ComiRec, and others)."""
    w, retriever = given_retriever(resample_logits=True)  # even a model that resamples in training
    torch.manual_seed(1)
    first, _ = interests_of(w, retriever)
    torch.manual_seed(2)
    w.model.train()
    assert torch.equal(interests_of(w, retriever)[0], first)
    loaded = MIND(w.config, w.model.items, w.model.item_features, w.model.profile_features, seed=99)
    loaded.load_state_dict(w.model.state_dict())
    assert torch.equal(interests_of(w, MINDRetriever.of(loaded, w.bags))[0], first)


def test_initial_logits_differ_so_that_interests_do() -> None:
    """Equal initial logits: all interests identical (TorchEasyRec's `zeros` option)."""
    # equal logits give equal capsules for ever ...
    mapped = torch.randn(1, 6, 4, generator=generator(1))
    capsules, _ = b2i_routing(mapped, torch.ones(1, 6).bool(), torch.ones(1, 3).bool(), torch.zeros(3, 6), 6)
    assert torch.allclose(capsules[0, 0], capsules[0, 1])
    # ... so the model refuses them, starts from noise, and its interests differ
    with pytest.raises(ValueError, match="sigma"):
        model_config(sigma=0.0)
    w, retriever = given_retriever(adaptive_interests=False)
    vectors, _ = interests_of(w, retriever)
    several = w.sequences.lengths > 1  # of one behaviour all are made alike, and two of three where there are two
    apart = torch.cdist(vectors, vectors).amax((1, 2))
    assert several.any()
    assert (apart[several] > 0.02).all(), "ten times what interests made of the same behaviour differ by"


def test_interest_count_uses_log2_and_is_honoured_in_serving() -> None:
    """Natural log for log2 in K'_u; K' not honoured in serving (EasyRec)."""
    # given 16 behaviours: log2 is 4 where the natural log is 2.77
    assert adaptive_interest_count(torch.tensor([16]), 8).tolist() == [4]
    # and users of few behaviours: the interests that are not theirs find nothing
    w, retriever = given_retriever(interests=4)
    users = torch.arange(len(w.sequences))
    _, own = interests_of(w, retriever)
    expected = [reference.adaptive_interest_count(min(int(n), 8), 4) for n in w.sequences.lengths]
    assert own.sum(1).tolist() == expected
    _, _, interest = recommend(retriever, w.sequences, users, 20, exclude_seen=False)
    assert (interest < torch.tensor(expected).unsqueeze(1)).all()
    assert (interest.max(1).values == torch.tensor(expected) - 1).float().mean() > 0.5, "the own ones do find items"


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_any_number_of_iterations_is_run_and_the_shared_map_learns_in_each(iterations: int) -> None:
    """Number of iterations hard-coded; S gets no gradient for r = 1 or 2 (torch-rechub)."""
    w = world(random_sequences(20, 30, 8), 30, iterations=iterations)
    before = w.model.encoder.shared_map.detach().clone()
    trainer(w).train_step(w.sequences, batches(w.sequences, 8, 1)[0])
    gradient = w.model.encoder.shared_map.grad
    assert gradient is not None
    assert gradient.abs().max() > 1e-6
    assert not torch.equal(w.model.encoder.shared_map, before)
    # and the iterations differ in their result
    mapped, logits = torch.randn(1, 5, 4, generator=generator(1)), torch.randn(3, 5, generator=generator(2))
    masks = torch.ones(1, 5).bool(), torch.ones(1, 3).bool()
    this, _ = b2i_routing(mapped, *masks, logits, iterations)
    following, _ = b2i_routing(mapped, *masks, logits, iterations + 1)
    assert (this - following).abs().max() > 1e-3


def test_padding_receives_no_routing_mass_and_its_row_is_never_trained() -> None:
    """Padding receives routing mass, or a padded row is trained (torch-rechub, REMI)."""
    mapped, logits = torch.randn(2, 6, 4, generator=generator(1)), torch.randn(3, 6, generator=generator(2))
    mask = prefix_mask([4, 0], 6)
    capsules, weights = b2i_routing(mapped, mask, own_mask([2, 1], 3), logits, 3)
    assert (weights.transpose(1, 2)[~mask] == 0).all()
    cut, _ = b2i_routing(mapped[:1, :4], mask[:1, :4], own_mask([2], 3), logits[:, :4], 3)
    assert torch.allclose(capsules[:1], cut, atol=1e-6)
    assert torch.equal(capsules[1], torch.zeros(3, 4))

    w = world([[5, 6], list(range(2, 12))], 15, recency=True)
    t = trainer(w, optim=OptimConfig(learning_rate=0.05, table_learning_rate=0.1, weight_decay=0.1))
    for samples in batches(w.sequences, 8, 20):
        t.train_step(w.sequences, samples)
    for table in (w.model.item_table, w.model.profile_table):
        assert torch.equal(table.weight[0], torch.zeros_like(table.weight[0]))


def test_truncation_keeps_the_newest_behaviours() -> None:
    """Truncation keeps the oldest behaviours (torch-rechub's example)."""
    sequences = sequences_of([[2, 3, 4, 5, 6, 7]])
    assert full_histories(sequences, torch.tensor([0]), View(3)).items.tolist() == [[5, 6, 7]]
    assert windows(sequences, torch.tensor([0]), torch.tensor([5]), View(3)).items.tolist() == [[4, 5, 6]]
    # a user's vectors change with the newest behaviour beyond L, not with the oldest
    w = world([[2, 3, 4, 5], [9, 3, 4, 5], [2, 3, 4, 9]], 12, profile=False, max_history=3)
    vectors, _ = interests_of(w, MINDRetriever.of(w.model, w.bags))
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])


@pytest.mark.parametrize("power", [0.5, 3.0, 100.0, math.inf])
def test_attention_neither_underflows_nor_always_picks_interest_zero(power: float) -> None:
    """Pow underflow: interest 0 always chosen (DeepMatch)."""
    # given small and negative dots, whose powers vanish or are no numbers; the best interest is the last
    interests, label = torch.tensor([[[-3e-3], [-2e-3], [1e-3]]]), torch.ones(1, 1)
    user, weights = label_aware_attention(interests, label, torch.ones(1, 3).bool(), power)
    assert user.isfinite().all()
    assert weights.argmax(1).tolist() == [2]
    assert (weights.diff(dim=1) >= 0).all(), "the better the match, the larger the weight"


def popularity_slope(loss: LossConfig) -> float:
    """How fast a trained model's scores rise with log popularity, where there is nothing else to learn."""
    counts = torch.tensor([64, 32, 16, 8, 4, 2])
    flat = torch.repeat_interleave(torch.arange(2, 8), counts)[torch.randperm(126, generator=generator(1))]
    w = world(flat.view(42, 3).tolist(), 8, features=False, profile=False, encoder="mean", interests=1, hidden=())
    t = trainer(w, loss, OptimConfig(learning_rate=0.02, table_learning_rate=0.02))
    everything = all_targets(w.sequences)
    for _ in range(150):
        t.train_step(w.sequences, everything)
    retriever = MINDRetriever.of(w.model, w.bags)
    vectors, _ = interests_of(w, retriever)
    scores = (vectors[:, 0] @ retriever.item_vectors.T)[:, 2:].mean(0).double().numpy()
    return float(np.polyfit(np.log(counts.double().numpy()), scores, 1)[0])


def test_logq_keeps_popular_items_from_being_penalised() -> None:
    """No logQ, so popular items are over-penalised (EasyRec, TorchEasyRec)."""
    popular: Any = {"uniform_negatives": 0, "popularity_negatives": 256, "popularity_power": 1.0}
    exact = popularity_slope(LossConfig(kind="full"))
    # then with logQ scores favour popular items as the exact softmax does, and without it less
    assert popularity_slope(LossConfig(**popular)) == pytest.approx(exact, rel=0.15)
    assert popularity_slope(LossConfig(**popular, logq=False)) < 0.8 * exact


@pytest.mark.parametrize("kind", ["sampled", "full"])
def test_temperature_is_used(kind: Any) -> None:
    """Temperature accepted and ignored (torch-rechub)."""
    losses = []
    for temperature in (1.0, 0.1):
        w = world(random_sequences(20, 30, 8), 30, normalize_items=True, temperature=temperature)
        losses.append(trainer(w, LossConfig(kind=kind)).train_step(w.sequences, batches(w.sequences, 8, 1)[0]).item())
    assert abs(losses[0] - losses[1]) > 0.1


def test_the_merge_is_by_item_id_and_never_returns_an_item_twice() -> None:
    """Merge across interests de-duplicates by score, or returns an item twice (TorchEasyRec)."""
    # given item 5 found twice with different scores, and items 6 and 7 with one and the same score
    items = torch.tensor([[[5, 6], [7, 5]]])
    scores = torch.tensor([[[4.0, 3.0], [3.0, 2.0]]])
    merged, top, _ = merge_interests(items, scores, 4)
    assert merged.tolist() == [[5, 6, 7, 0]]
    assert top[0, :3].tolist() == [4.0, 3.0, 3.0]
    # and in exact search, where all interests are alike
    found, _, _ = search(
        Catalogue(torch.randn(30, 4, generator=generator())), torch.ones(1, 3, 4), torch.ones(1, 3).bool(), 28
    )
    assert sorted(found[0].tolist()) == list(range(2, 30))


def test_ndcg_is_computed_in_rank_order() -> None:
    """NDCG computed on an unordered set or in ground-truth order (REMI, ComiRec's paper branch)."""
    # given two targets found at ranks 1 and 4: listed either way round, the gain belongs to the rank
    expected = (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    for ranks in ([1, 4], [4, 1]):
        ndcg = user_metrics(torch.tensor(ranks), torch.tensor([0, 0]), 1, [5])["ndcg@5"]
        assert ndcg.tolist() == pytest.approx([expected])
    # and two hits at the bottom are worth less than two at the top
    top = user_metrics(torch.tensor([1, 2]), torch.tensor([0, 0]), 1, [5])["ndcg@5"].item()
    bottom = user_metrics(torch.tensor([4, 5]), torch.tensor([0, 0]), 1, [5])["ndcg@5"].item()
    assert top == 1.0 > bottom


def test_evaluation_ranks_the_whole_catalogue() -> None:
    """Evaluation against sampled candidates only (EasyRec, TorchEasyRec)."""
    w, retriever = given_retriever()
    users = torch.arange(len(w.sequences))
    found, _, _ = recommend(retriever, w.sequences, users, 58, exclude_seen=False)
    assert all(sorted(x) == list(range(2, 60)) for x in found.tolist()), "every item has its rank for every user"
    # and a target's rank is its place among all of them
    last = w.sequences.items[w.sequences.offsets[1:] - 1]
    targets = Targets(last, torch.arange(len(users) + 1))
    outcome = evaluate(retriever, w.sequences, targets, users, [58], exclude_seen=False)
    places = (found == last.unsqueeze(1)).int().argmax(1) + 1
    assert outcome.ranks.tolist() == places.tolist()
    assert outcome.ranks.max() > 20


def test_negatives_differ_from_step_to_step_and_from_seed_to_seed() -> None:
    """A seed reset inside the sampling loop: the same pairs for ever (PaddleRec)."""
    w = world(random_sequences(20, 60, 8), 60)
    t = trainer(w, LossConfig(uniform_negatives=8, popularity_negatives=8))
    drawn = []

    class Spy(NegativeSampler):
        def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
            drawn.append(super().draw(labels, generator))
            return drawn[-1]

    t.sampler = Spy(t.sampler.config, w.counts)
    for _ in range(20):
        t.train_step(w.sequences, batches(w.sequences, 4, 1)[0])  # the same batch over and over
    assert len({tuple(x.tolist()) for x in drawn}) == 20
    other = t.sampler.draw(torch.tensor([2]), seeded("cpu", 1, "negatives", 0))
    assert not torch.equal(other, drawn[0])


def test_a_saved_model_ranks_exactly_as_it_was_evaluated() -> None:
    """Exported model ranks differently from evaluation (Merlin models #387)."""
    # given a model that trained a little
    w, _ = given_retriever(normalize_items=True, normalize_interests=True, temperature=0.2)
    t: Trainer = trainer(w)
    for samples in batches(w.sequences, 16, 5):
        t.train_step(w.sequences, samples)
    users = torch.arange(len(w.sequences))
    evaluated = MINDRetriever.of(w.model, w.bags)
    expected = recommend(evaluated, w.sequences, users, 20, exclude_seen=True)
    # when its weights and item vectors are saved and loaded into a fresh one, and users come one by one
    fresh = MIND(w.config, w.model.items, w.model.item_features, w.model.profile_features, seed=5)
    fresh.load_state_dict({name: value.clone() for name, value in w.model.state_dict().items()})
    loaded = MINDRetriever(fresh, evaluated.behaviour_vectors.clone())
    # then every list, score and interest is the same to the last bit
    for user in range(0, len(users), 7):
        one = recommend(loaded, w.sequences, users[user : user + 1], 20, exclude_seen=True)
        assert all(torch.equal(a[0], b[user]) for a, b in zip(one, expected, strict=True))

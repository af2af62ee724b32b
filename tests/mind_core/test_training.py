"""Training steps: padding, laziness, reproducibility, resume, schedule, and that the model learns."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mind_core.config import LossConfig, OptimConfig
from mind_core.features import item_bags
from mind_core.inference import MINDRetriever, recommend
from mind_core.negatives import NegativeSampler
from mind_core.sequences import Samples, View, full_histories, windows
from mind_core.training import Trainer, learning_rate_factor, seeded
from tests.mind_core.given import (
    World,
    all_targets,
    batches,
    item_columns,
    planted_interests,
    random_sequences,
    sequences_of,
    trainer,
    world,
)

ITEMS = 40
Step = tuple[Trainer, World]


def given_run(
    loss: LossConfig | None = None, optim: OptimConfig | None = None, seed: int = 0, more: Any = None, **changes: Any
) -> Step:
    w = world(random_sequences(30, ITEMS, 12, seed=9), ITEMS, seed=seed, **changes)
    return trainer(w, loss, optim, seed=seed, **(more or {})), w


def run(t: Trainer, w: World, steps: list[Samples]) -> list[float]:
    return [t.train_step(w.sequences, samples).item() for samples in steps]


def weights(w: World) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in w.model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- padding, unknown, untouched rows ---

KINDS = {
    "sampled": LossConfig(uniform_negatives=8, popularity_negatives=8),
    "in-batch": LossConfig(uniform_negatives=4, popularity_negatives=0, in_batch=True),
    "full": LossConfig(kind="full"),
}


@pytest.mark.parametrize("table_optimizer", ["adam", "adagrad"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_padding_rows_never_change(kind: str, table_optimizer: Any) -> None:
    optim = OptimConfig(learning_rate=0.05, table_learning_rate=0.1, table_optimizer=table_optimizer, weight_decay=0.1)
    t, w = given_run(KINDS[kind], optim, recency=True)
    before = weights(w)
    run(t, w, batches(w.sequences, 16, 20))
    after = weights(w)
    for table in ("item_table.weight", "profile_table.weight"):
        assert torch.equal(after[table][0], torch.zeros_like(after[table][0]))
        assert not torch.equal(after[table], before[table]), "the others did change"


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_whatever_cold_items_are_like(kind: str) -> None:
    """They are no negatives: no user is pushed away from them, nor from the features that they share with others."""
    outcomes = []
    for amount in (1.0, 100.0):
        # given sequences that leave the last ten items out, and cold items of small or of huge vectors
        w = world(random_sequences(30, ITEMS - 10, 12, seed=9), ITEMS)
        cold = w.counts == 0
        cold[:2] = False
        assert cold.sum() >= 10
        bags = item_bags(item_columns(ITEMS), ITEMS, cold)
        loud = torch.where(torch.repeat_interleave(cold, bags.offsets.diff()), amount, 1.0)
        bags = replace(bags, weights=bags.weights * loud)
        sampler = NegativeSampler(KINDS[kind], w.counts, cold=cold)
        t = Trainer(w.model, bags, sampler, OptimConfig(table_learning_rate=0.05), total_steps=100)
        before = weights(w)["item_table.weight"]
        # when trained
        losses = run(t, w, batches(w.sequences, 16, 10))
        outcomes.append((losses, weights(w)))
        # then their own rows are as on the first day
        assert torch.equal(w.model.item_table.weight[:ITEMS][cold], before[:ITEMS][cold])
    assert outcomes[0][0] == outcomes[1][0]
    assert same(outcomes[0][1], outcomes[1][1])


def test_only_rows_of_a_steps_items_change() -> None:
    # given one sample (history 5, label 6) and negatives that the sampler draws
    w = world([[5, 6]], 30, features=False, profile=False)
    t = trainer(w, LossConfig(uniform_negatives=3, popularity_negatives=0))
    drawn = t.sampler.draw(torch.tensor([6]), seeded("cpu", 0, "negatives", 0))
    before = w.model.item_table.weight.clone()
    t.train_step(w.sequences, Samples(torch.tensor([0]), torch.tensor([1])))
    changed = (w.model.item_table.weight != before).any(1).nonzero().flatten().tolist()
    assert changed == sorted({5, 6, *drawn.tolist()})


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_items_in_a_history_train_the_unknown_row_and_it_starts_at_zero(kind: str) -> None:
    w = world([[1, 5, 6, 7, 1, 8]], 12, profile=False)
    assert torch.equal(w.model.item_table.weight[1], torch.zeros(8))
    t = trainer(w, KINDS[kind])
    run(t, w, [Samples(torch.tensor([0, 0]), torch.tensor([3, 5]))] * 3)
    assert w.model.item_table.weight.isfinite().all()
    assert (w.model.item_table.weight[1] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_any_behaviour_trains_and_stays_finite(kind: str) -> None:
    t, w = given_run(KINDS[kind])
    firsts = Samples(torch.arange(6), w.sequences.offsets[:6])  # the label is the user's first item
    assert not windows(w.sequences, firsts.users, firsts.positions, View(8)).mask.any()
    losses = run(t, w, [firsts] * 3)
    assert all(math.isfinite(x) for x in losses)
    assert all(value.isfinite().all() for value in weights(w).values())
    if kind == "full":  # the same negatives at every step, so that losses compare
        assert losses[-1] < losses[0], "the profile and the biases can still learn the labels"


def test_the_padded_width_of_a_batch_does_not_matter() -> None:
    # given a sample with a short history, alone and beside a sample with a long one
    w = world([[5, 6, 7], list(range(2, 12))], 15, features=False, profile=False)
    still = OptimConfig(learning_rate=1e-30, table_learning_rate=1e-30)
    short, long = Samples(torch.tensor([0]), torch.tensor([2])), Samples(torch.tensor([1]), torch.tensor([12]))
    both = Samples(torch.cat([short.users, long.users]), torch.cat([short.positions, long.positions]))
    losses = [trainer(w, KINDS["full"], still).train_step(w.sequences, s).item() for s in (short, long, both)]
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-6)


# --- against dense computation ---


def dense_loss(w: World, scoring: str, table: Tensor, samples: Samples) -> Tensor:
    """The full softmax loss from one dense table, without features: torch's own embedding and cross entropy."""
    histories = windows(w.sequences, samples.users, samples.positions, w.model.view)
    labels = w.sequences.items[samples.positions]
    interests, own, _ = w.model.encoder(torch.nn.functional.embedding(histories.items, table), histories.mask, None)
    by_interest = (interests @ table.T).masked_fill(~own.unsqueeze(2), -math.inf)  # (B, K, V)
    scores = by_interest.max(1).values
    if scoring == "label_attention":
        agreement = by_interest[torch.arange(len(labels)), :, labels]  # (B, K), at power 1
        scores = (agreement.softmax(1).unsqueeze(2) * interests).sum(1) @ table.T
    return torch.nn.functional.cross_entropy(scores[:, 2:] / w.config.temperature, labels - 2)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("scoring", ["best_match", "label_attention"])
@pytest.mark.parametrize("changes", [{}, {"interests": 1, "encoder": "mean", "temperature": 0.5}])
def test_full_softmax_training_is_dense_training_with_torchs_adamw(
    weight_decay: float, scoring: Any, changes: dict[str, Any]
) -> None:
    optim = OptimConfig(learning_rate=0.01, table_learning_rate=0.02, weight_decay=weight_decay)
    lists = random_sequences(30, ITEMS, 12, seed=9)
    ours = world(lists, ITEMS, features=False, profile=False, **changes)
    theirs = world(lists, ITEMS, features=False, profile=False, **changes)
    t = trainer(ours, LossConfig(kind="full", scoring=scoring), optim)
    table = torch.nn.Parameter(theirs.model.item_table.weight.clone())
    reference = torch.optim.AdamW(
        [
            {"params": theirs.model.encoder.parameters(), "lr": 0.01},
            {"params": [table], "lr": 0.02},
        ],
        weight_decay=weight_decay,
    )
    for samples in batches(ours.sequences, 16, 15):
        loss = dense_loss(theirs, scoring, table, samples)
        reference.zero_grad()
        loss.backward()
        assert table.grad is not None
        table.grad[0] = 0.0  # padding rows contribute to nothing, hence no gradient
        reference.step()
        assert t.train_step(ours.sequences, samples).item() == pytest.approx(loss.item(), rel=1e-4)
    trained = torch.arange(2, ITEMS)
    assert torch.allclose(ours.model.item_table.weight[trained], table[trained], atol=2e-4)
    for a, b in zip(ours.model.encoder.parameters(), theirs.model.encoder.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-4)


def test_sampled_training_is_lazy_a_rested_row_keeps_its_value_and_its_moments() -> None:
    t, w = given_run(LossConfig(uniform_negatives=2, popularity_negatives=0), features=False, profile=False)
    for samples in batches(w.sequences, 2, 10):
        before, moments = w.model.item_table.weight.clone(), t.state_dict()["rows.items.first"].clone()
        updates = t.state_dict()["rows.items.updates"].clone()
        t.train_step(w.sequences, samples)
        rested = t.state_dict()["rows.items.updates"] == updates
        assert rested.any()
        assert torch.equal(w.model.item_table.weight[rested], before[rested])
        assert torch.equal(t.state_dict()["rows.items.first"][rested], moments[rested])


# --- determinism and resume ---

EVERYTHING: dict[str, Any] = {"resample_logits": True, "recency": True, "normalize_items": True, "temperature": 0.2}


@pytest.mark.parametrize("changes", [{}, EVERYTHING])
def test_the_same_seed_twice_is_bit_identical(changes: dict[str, Any]) -> None:
    runs = []
    for noise in (1, 2):
        t, w = given_run(more={"behaviour_dropout": 0.3}, **changes)
        torch.manual_seed(noise)  # the global generator has no say
        runs.append((run(t, w, batches(w.sequences, 8, 10)), weights(w)))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])


def test_different_seeds_differ() -> None:
    losses = []
    for seed in (0, 1):
        w = world(random_sequences(30, ITEMS, 12, seed=9), ITEMS)  # the same initial weights
        losses.append(run(trainer(w, seed=seed), w, batches(w.sequences, 8, 3)))
    assert losses[0][0] != losses[1][0]


@pytest.mark.parametrize("table_optimizer", ["adam", "adagrad"])
def test_a_resumed_run_continues_bit_identically(table_optimizer: Any) -> None:
    optim = OptimConfig(
        learning_rate=0.01, table_learning_rate=0.05, table_optimizer=table_optimizer, schedule="cosine", warmup_steps=3
    )
    more = {"behaviour_dropout": 0.2, "total_steps": 20}
    t, w = given_run(None, optim, more=more, **EVERYTHING)
    steps = batches(w.sequences, 8, 20)
    run(t, w, steps[:8])
    saved, state = weights(w), {name: value.clone() for name, value in t.state_dict().items()}
    expected = run(t, w, steps[8:])

    resumed, fresh = given_run(None, optim, more=more, **EVERYTHING)
    fresh.model.load_state_dict(saved)
    resumed.load_state_dict(state)
    assert run(resumed, fresh, steps[8:]) == expected
    assert same(weights(fresh), weights(w))


def test_the_trainers_state_is_flat_tensors() -> None:
    t, w = given_run()
    run(t, w, batches(w.sequences, 8, 2))
    assert all(isinstance(value, Tensor) for value in t.state_dict().values())
    assert int(t.state_dict()["step"]) == 2


def test_seeded_streams_differ_by_any_part_of_their_key() -> None:
    keys = [
        (0, "negatives", 0, 0),
        (1, "negatives", 0, 0),
        (0, "dropout", 0, 0),
        (0, "negatives", 1, 0),
        (0, "negatives", 0, 1),
    ]
    first = [torch.rand(4, generator=seeded("cpu", *key)).tolist() for key in keys]
    assert first == [torch.rand(4, generator=seeded("cpu", *key)).tolist() for key in keys]
    assert len({tuple(x) for x in first}) == len(keys)


@pytest.mark.parametrize("noise", [{"more": {"behaviour_dropout": 0.5}}, {"resample_logits": True}])
def test_dropout_and_resampled_logits_differ_from_step_to_step(noise: dict[str, Any]) -> None:
    # given a model that stands still, exact softmax, and one batch over and over: only the noise can change the loss
    still = OptimConfig(learning_rate=1e-30, table_learning_rate=1e-30)
    t, w = given_run(LossConfig(kind="full"), still, **noise)
    losses = run(t, w, batches(w.sequences, 16, 1) * 6)
    assert len(set(losses)) == 6


def test_resampled_logits_are_for_training_only() -> None:
    t, w = given_run(resample_logits=True)
    before = w.model.encoder.routing_logits.clone()
    run(t, w, batches(w.sequences, 8, 3))
    assert torch.equal(w.model.encoder.routing_logits, before)
    retriever, users = MINDRetriever.of(w.model, w.bags), torch.arange(5)
    histories = full_histories(w.sequences, users, w.model.view)
    assert torch.equal(retriever.interests(histories)[0], retriever.interests(histories)[0])


# --- schedule ---


def test_the_learning_rate_warms_up_linearly_then_decays_to_zero() -> None:
    linear = OptimConfig(schedule="linear", warmup_steps=4)
    assert [learning_rate_factor(s, 14, linear) for s in (0, 1, 3, 4, 9, 14)] == [0.25, 0.5, 1.0, 1.0, 0.5, 0.0]
    cosine = OptimConfig(schedule="cosine")
    assert [learning_rate_factor(s, 10, cosine) for s in (0, 5, 10)] == pytest.approx([1.0, 0.5, 0.0])
    assert [learning_rate_factor(s, 10, OptimConfig()) for s in (0, 9)] == [1.0, 1.0]


@settings(deadline=None, max_examples=100)
@given(
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    step=st.integers(0, 60),
    total=st.integers(0, 40),
    warmup=st.integers(0, 50),
)
def test_the_learning_rate_is_never_negative_nor_above_its_peak(
    schedule: Any, step: int, total: int, warmup: int
) -> None:
    assert 0 <= learning_rate_factor(step, total, OptimConfig(schedule=schedule, warmup_steps=warmup)) <= 1


def test_both_rates_follow_the_schedule() -> None:
    # given a warm-up of 1000 steps: Adam's first step moves a weight by at most rate / 1000
    optim = OptimConfig(learning_rate=1.0, table_learning_rate=2.0, warmup_steps=1000)
    t, w = given_run(optim=optim, features=False, profile=False)
    before = weights(w)
    run(t, w, batches(w.sequences, 16, 1))
    moved = {name: (value - before[name]).abs().max().item() for name, value in weights(w).items()}
    assert moved["item_table.weight"] == pytest.approx(2e-3, rel=0.01)
    assert moved["encoder.output.weight"] == pytest.approx(1e-3, rel=0.01)


# --- it learns ---


def test_planted_interests_are_learned() -> None:
    # given users who each mix two of six clusters of ten items
    lists, items = planted_interests(users=300, clusters=6, per_cluster=10, length=12)
    w = world(lists, items, features=False, profile=False, dim=16, max_history=12, hidden=(32,), residual=True)
    held_out = sequences_of([x[:-1] for x in lists])
    targets = torch.tensor([x[-1] for x in lists])

    def recall() -> float:
        retriever = MINDRetriever.of(w.model, w.bags)
        found, _, _ = recommend(retriever, held_out, torch.arange(300), 20, exclude_seen=False)
        return (found == targets.unsqueeze(1)).any(1).float().mean().item()

    optim = OptimConfig(learning_rate=0.005, table_learning_rate=0.05)
    t = trainer(w, LossConfig(kind="full"), optim)
    before = recall()
    samples = all_targets(held_out)
    losses = []
    for step in range(150):
        index = torch.randint(0, len(samples), (128,), generator=seeded("cpu", "batch", step))
        losses.append(t.train_step(held_out, samples[index]).item())
    # then the loss is well below log V = 4.09 (the plant's own entropy is log 20 = 3.0), and recall@20 well above 1/3
    assert sum(losses[-20:]) / 20 < math.log(items - 2) - 0.5
    assert recall() > max(0.6, before + 0.2)


# --- clipping, and rates that were halved ---


class Recorded:
    """In the place of a row optimiser: keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[Tensor, Tensor, float]] = []

    def update(self, weight: Tensor, rows: Tensor, grad: Tensor, learning_rate: float) -> None:
        self.given.append((rows, grad.clone(), learning_rate))


def gradients(clip_norm: float | None) -> list[Tensor]:
    """All gradients of one step, dense and rows, as the optimisers get them."""
    t, w = given_run(KINDS["sampled"], OptimConfig(clip_norm=clip_norm))
    recorded = {name: Recorded() for name in t.rows}
    t.rows = dict(recorded)  # type: ignore[arg-type]
    run(t, w, batches(w.sequences, 16, 1))
    dense = [each.grad.clone() for each in w.model.encoder.parameters() if each.grad is not None]
    return [*dense, *(grad for each in recorded.values() for _, grad, _ in each.given)]


def norm(parts: list[Tensor]) -> float:
    return math.sqrt(sum(float(each.double().square().sum()) for each in parts))


def test_gradients_of_dense_parameters_and_rows_are_clipped_together() -> None:
    whole = gradients(None)
    assert all(torch.equal(a, b) for a, b in zip(whole, gradients(norm(whole) * 1.01), strict=True))
    clipped = gradients(norm(whole) / 4)
    assert norm(clipped) == pytest.approx(norm(whole) / 4, rel=1e-5)
    for before, after in zip(whole, clipped, strict=True):
        torch.testing.assert_close(after, before / 4)


def test_half_the_rate_is_half_the_rates_of_the_settings_and_is_kept_in_a_checkpoint() -> None:
    settings = OptimConfig(learning_rate=0.01, table_learning_rate=0.02)
    half = OptimConfig(learning_rate=0.005, table_learning_rate=0.01)
    (t, w), (other, other_w) = given_run(KINDS["sampled"], settings), given_run(KINDS["sampled"], half)
    t.rate_factor = 0.5
    for each, its in ((t, w), (other, other_w)):
        run(each, its, batches(its.sequences, 16, 3))
    assert same(weights(w), weights(other_w))
    fresh, _ = given_run(KINDS["sampled"], settings)
    fresh.load_state_dict(t.state_dict())
    assert fresh.rate_factor == 0.5

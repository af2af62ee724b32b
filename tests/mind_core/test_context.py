"""The context encoder: causal, about order, closed at the start; and windows that many labels share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core.config import ModelConfig
from mind_core.context import ContextEncoder, dropped, rotated, rotation
from mind_core.inference import MINDRetriever
from mind_core.loss import own_vectors
from mind_core.sequences import Samples, View, WindowEnds, ends_before, full_histories, packed, windows
from tests.mind_core.given import generator, random_sequences, sequences_of, trainer, world

CONTEXT = {"context": "transformer", "context_dropout": 0.0, "heads": 2, "dim": 8}


def given_encoder(seed: int = 0) -> ContextEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = ContextEncoder(dim=8, layers=2, heads=2, dropout=0.0)
    with torch.no_grad():
        encoder.gate.fill_(1.0)
    return encoder


def test_a_behaviour_is_read_with_older_ones_only() -> None:
    encoder, behaviours = given_encoder(), torch.randn(2, 6, 8, generator=generator())
    said = encoder(behaviours)
    changed = behaviours.clone()
    changed[:, 4:] = torch.randn(2, 2, 8, generator=generator(1))
    torch.testing.assert_close(encoder(changed)[:, :4], said[:, :4])
    assert not torch.allclose(encoder(changed)[:, 4:], said[:, 4:])


def test_padding_at_the_end_changes_nothing() -> None:
    encoder, behaviours = given_encoder(), torch.randn(1, 3, 8, generator=generator())
    wide = torch.cat([behaviours, torch.randn(1, 4, 8, generator=generator(2))], 1)
    torch.testing.assert_close(encoder(wide)[:, :3], encoder(behaviours))


def test_the_order_of_behaviours_is_read() -> None:
    encoder, behaviours = given_encoder(), torch.randn(1, 4, 8, generator=generator())
    swapped = behaviours[:, [1, 0, 2, 3]]
    assert not torch.allclose(encoder(swapped)[:, -1], encoder(behaviours)[:, -1])


@settings(deadline=None, max_examples=30)
@given(first=st.integers(0, 20), apart=st.integers(0, 20))
def test_products_of_turned_vectors_depend_on_the_distance_only(first: int, apart: int) -> None:
    g = generator(3)
    query, key = torch.randn(1, 6, generator=g).double(), torch.randn(1, 6, generator=g).double()
    turn = rotation(60, 6, query)

    def product(a: int, b: int) -> float:
        one = rotated(query, (turn[0][a], turn[1][a]))
        return float((one * rotated(key, (turn[0][b], turn[1][b]))).sum())

    assert product(first, first + apart) == pytest.approx(product(0, apart), abs=1e-5)


def test_a_fresh_model_is_what_it_is_without_context() -> None:
    lists = random_sequences(5, 20, 8)
    plain, fresh = world(lists, 20), world(lists, 20, **CONTEXT)
    fresh.model.load_state_dict(plain.model.state_dict(), strict=False)
    one, other = (MINDRetriever.of(w.model, w.bags) for w in (plain, fresh))
    histories = full_histories(plain.sequences, torch.arange(5), one.view)
    torch.testing.assert_close(one.interests(histories)[0], other.interests(histories)[0])


def test_a_user_without_behaviours_has_no_context() -> None:
    w = world([[2, 3]], 20, normalize_interests=True, **CONTEXT)
    with torch.no_grad():
        w.model.encoder.context.gate.fill_(1.0)
    nobody = torch.zeros(1, 8, 8), torch.zeros(1, 8, dtype=torch.bool)
    assert not w.model.encoder._context(*nobody).any()


@settings(deadline=None, max_examples=30)
@given(share=st.floats(0, 0.9), shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_dropout_keeps_the_mean_and_drops_its_share_wherever_an_element_stands(
    share: float, shape: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(4096, *shape, dtype=torch.float64)
    y = dropped(x, share)
    kept = y != 0
    rounded = round(256 * share) / 256
    torch.testing.assert_close(y[kept], x[kept] / (1 - rounded))
    gone = 1 - kept.double().mean(0)  # of each place, over 4,096 draws
    assert (gone - rounded).abs().max() < 6 * (0.25 / 4096) ** 0.5
    torch.manual_seed(seed)
    torch.randn(4096, *shape, dtype=torch.float64)
    assert torch.equal(dropped(x, share), y)


# --- windows that many labels share ---


@settings(deadline=None, max_examples=60)
@given(
    lists=st.lists(st.lists(st.integers(2, 9), max_size=20), min_size=1, max_size=5).filter(
        lambda lists: any(len(each) > 1 for each in lists)
    ),
    longest=st.integers(1, 6),
)
def test_windows_are_cut_so_that_every_event_but_the_first_is_the_label_of_one(
    lists: list[list[int]], longest: int
) -> None:
    sequences = sequences_of(lists)
    ends = WindowEnds(sequences, longest)
    found = ends[torch.arange(len(ends))]
    labels = []
    for user, end in zip(found.users.tolist(), found.positions.tolist(), strict=True):
        first = max(int(sequences.offsets[user]), end - longest)
        labels += range(first + 1, end + 1)
    firsts = set(sequences.offsets[:-1].tolist())
    assert sorted(labels) == [p for p in range(len(sequences.items)) if p not in firsts]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), longest=st.integers(1, 6), labels=st.integers(1, 8), traits=st.booleans())
def test_a_shared_window_shows_each_label_what_a_window_of_its_own_would(
    data: st.DataObject, longest: int, labels: int, traits: bool
) -> None:
    lists = data.draw(st.lists(st.lists(st.integers(2, 6), min_size=2, max_size=15), min_size=1, max_size=4))
    sequences = sequences_of(lists)
    ends = WindowEnds(sequences, longest)
    samples = ends[torch.arange(len(ends))]
    found = packed(sequences, samples, View(longest, traits=traits), labels, generator(1))
    mask, per = found.mask.view(len(samples), labels, -1), found.real.view(len(samples), labels)
    for row, (user, end) in enumerate(zip(samples.users.tolist(), samples.positions.tolist(), strict=True)):
        first = max(int(sequences.offsets[user]), end - longest)
        drawn = found.positions.view(len(samples), labels)[row][per[row]].tolist()
        assert len(set(drawn)) == len(drawn) == min(labels, end - first)
        for column in per[row].nonzero().flatten().tolist():
            position = int(found.positions.view(len(samples), labels)[row, column])
            assert found.items[row][mask[row, column]].tolist() == sequences.items[first:position].tolist()
            if traits:
                number, view = row * labels + column, View(position - first, traits=True)
                own = windows(sequences, torch.tensor([user]), torch.tensor([position]), view)
                assert found.traits is not None
                assert found.newest is not None
                assert own.traits is not None
                torch.testing.assert_close(found.traits[number][mask[row, column]], own.traits[0])


def test_vectors_of_a_shared_window_are_those_of_windows_of_their_own() -> None:
    """One pass of the blocks over a window serves every label as a pass of its own would."""
    lists = random_sequences(6, 20, 8, shortest=8)
    w = world(lists, 20, profile=False, recency=True, shared=True, initial_logits="item", **CONTEXT)
    with torch.no_grad():
        w.model.encoder.context.gate.fill_(1.0)
    samples = Samples(torch.arange(6), w.sequences.offsets[1:] - 1)
    found = packed(w.sequences, samples, w.model.view, 5, generator())
    vectors = MINDRetriever.of(w.model, w.bags).behaviour_vectors
    together, own, _ = w.model.encoder(vectors[found.items], found.mask, None)
    users = torch.arange(6).repeat_interleave(5)
    alone = windows(w.sequences, users, found.positions, w.model.view)
    apart, own_apart, _ = w.model.encoder(vectors[alone.items], alone.mask, None)
    torch.testing.assert_close(own_vectors(together, own), own_vectors(apart, own_apart), atol=1e-5, rtol=1e-4)


def test_a_step_over_shared_windows_is_a_step_over_their_labels() -> None:
    lists = random_sequences(6, 20, 8, shortest=3)
    losses = []
    for shared in (True, False):
        w = world(lists, 20, **CONTEXT, repeat="memory")
        ends = Samples(torch.arange(6), w.sequences.offsets[1:] - 1)
        one = trainer(w, labels_per_window=10)
        if shared:
            losses.append(float(one.train_step(w.sequences, ends)))
            continue
        labels = [
            (u, p) for u in range(6) for p in range(int(w.sequences.offsets[u]) + 1, int(w.sequences.offsets[u + 1]))
        ]
        every = Samples(torch.tensor([u for u, _ in labels]), torch.tensor([p for _, p in labels]))
        losses.append(float(trainer(w).train_step(w.sequences, every)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_dropout_of_the_context_is_the_same_whatever_was_drawn_before() -> None:
    lists, losses = random_sequences(6, 20, 8, shortest=3), []
    for noise in (1, 2):
        w = world(lists, 20, **(CONTEXT | {"context_dropout": 0.5}))
        with torch.no_grad():
            w.model.encoder.context.gate.fill_(1.0)
        torch.manual_seed(noise)
        samples = Samples(torch.arange(6), w.sequences.offsets[1:] - 1)
        losses.append(float(trainer(w, labels_per_window=4).train_step(w.sequences, samples)))
    assert losses[0] == losses[1]


def test_a_model_in_training_is_evaluated_without_dropout() -> None:
    w = world(random_sequences(4, 20, 8), 20, **(CONTEXT | {"context_dropout": 0.5}))
    with torch.no_grad():
        w.model.encoder.context.gate.fill_(1.0)
    retriever = MINDRetriever.of(w.model.train(), w.bags)
    histories = full_histories(w.sequences, torch.arange(4), retriever.view)
    assert torch.equal(retriever.interests(histories)[0], retriever.interests(histories)[0])
    assert w.model.training


def test_distinct_items_cannot_share_a_window() -> None:
    sequences = sequences_of([[2, 3, 4]])
    with pytest.raises(ValueError, match="distinct"):
        packed(sequences, Samples(torch.tensor([0]), torch.tensor([2])), View(4, distinct=True), 2, generator())
    with pytest.raises(ValueError, match="history"):
        ModelConfig(context="transformer", history="distinct")


# --- a horizon ---


@settings(deadline=None, max_examples=40)
@given(horizon=st.integers(1, 6), seed=st.integers(0, 50))
def test_a_label_is_one_of_the_next_events_of_a_history_that_is_never_empty(horizon: int, seed: int) -> None:
    sequences = sequences_of([[2] * 9, [3] * 2])
    users, positions = torch.tensor([0] * 8 + [1]), torch.tensor([*range(1, 9), 10])
    ends = ends_before(sequences, users, positions, horizon, generator(seed))
    assert (ends <= positions).all()
    assert (ends > positions - horizon).all()
    assert (ends > sequences.offsets[users]).all()
    shared = packed(sequences, Samples(users, positions), View(5), 3, generator(seed), horizon)
    kept, user = shared.real, users.repeat_interleave(3)
    assert (shared.positions < sequences.offsets[user + 1])[kept].all()
    newest = shared.positions.new_tensor([int(row.sum()) for row in shared.mask])  # behaviours that a sample sees
    begins = torch.maximum(positions - 5, sequences.offsets[users]).repeat_interleave(3)
    ahead = shared.positions - begins - newest
    assert ((ahead >= 0) & (ahead < horizon))[kept].all()

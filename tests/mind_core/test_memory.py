"""The memory of a user's own items: in the loss exactly, in serving the same scores, and nothing elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mind_core import loss as losses
from mind_core.config import LossConfig
from mind_core.inference import MINDRetriever, recommend
from mind_core.loss import OwnItems, contained, own_vectors, places, sampled_softmax_loss
from mind_core.memory import MATCH, RepeatMemory
from mind_core.repeats import TRAITS
from mind_core.routing import products
from mind_core.sequences import Samples, full_histories, windows
from mind_core.training import Objective, StepBatch
from tests.mind_core.given import World, generator, trainer, world

AGAIN = [[5, 6, 5, 7, 5, 8], [9, 3, 9, 9, 4], [2, 3]]


def given_memory_that_counts(w: World) -> None:
    """r(u, i) = 2 log n - .5 log(1 + age), and a bit of the item's own."""
    memory = w.model.encoder.memory
    with torch.no_grad():
        memory.linear.weight[0, TRAITS.index("log count")] = 2.0
        memory.linear.weight[0, TRAITS.index("log age")] = -0.5
        memory.item.weight.normal_(0, 0.1, generator=generator(3))


def given_world(**changes: object) -> World:
    return world(AGAIN, 12, features=False, profile=False, repeat="memory", **changes)


def test_a_fresh_memory_leaves_own_items_a_part_of_their_best_match() -> None:
    memory, best = RepeatMemory(8), torch.randn(2, 3)
    added = memory(memory.of_items(torch.randn(2, 3, 8)), torch.randn(2, 3, len(TRAITS)), best)
    torch.testing.assert_close(best + added, MATCH * best)


@pytest.mark.parametrize("history", ["newest", "distinct"])
def test_served_scores_are_the_best_match_plus_the_memory_of_own_items_only(history: str) -> None:
    w = given_world(history=history)
    given_memory_that_counts(w)
    retriever = MINDRetriever.of(w.model, w.bags)
    users = torch.arange(3)
    items, scores, _ = recommend(retriever, w.sequences, users, 10, exclude_seen=False)
    vectors, own = retriever.interests(full_histories(w.sequences, users, retriever.view))
    for user, behaviours in enumerate(AGAIN):
        best = (vectors[user][own[user]] @ retriever.item_vectors.T).amax(0)
        for item, score in zip(items[user].tolist(), scores[user].tolist(), strict=True):
            expected = float(best[item])
            if item in behaviours:
                last = max(place for place, each in enumerate(behaviours) if each == item)
                expected *= MATCH
                expected += 2 * math.log(behaviours.count(item)) - 0.5 * math.log(len(behaviours) - last)
                expected += w.model.encoder.memory.item(retriever.behaviour_vectors[item]).item()
            assert score == pytest.approx(expected, abs=1e-5)


def test_what_a_user_is_remembered_for_does_not_depend_on_who_sits_beside() -> None:
    w = given_world(history="distinct")
    given_memory_that_counts(w)
    retriever = MINDRetriever.of(w.model, w.bags)

    def remembered(users: Tensor) -> Tensor | None:
        histories = full_histories(w.sequences, users, retriever.view, 8)
        return retriever.memory(histories, *retriever.interests(histories))

    together = remembered(torch.arange(3))
    alone = [remembered(torch.tensor([user])) for user in range(3)]
    assert together is not None
    assert torch.equal(together, torch.cat([each for each in alone if each is not None]))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_loss_with_own_items_is_a_softmax_in_which_each_of_them_stands_once(data: st.DataObject) -> None:
    g = generator(data.draw(st.integers(0, 99)))
    users, catalogue, dim, length = 3, 9, 4, 3
    vectors = torch.randn(users, 2, dim, generator=g, dtype=torch.float64)
    table = torch.randn(catalogue, dim, generator=g, dtype=torch.float64)
    memory = torch.randn(users, length, generator=g, dtype=torch.float64)
    chosen = [
        data.draw(st.lists(st.integers(2, catalogue - 1), max_size=length, unique=True), label="own items")
        for _ in range(users)
    ]
    own = torch.tensor([each + [0] * (length - len(each)) for each in chosen])
    labels = torch.randint(2, catalogue, (users,), generator=g)
    negatives = torch.randint(2, catalogue, (7,), generator=g)
    expected = torch.randn(7, generator=g, dtype=torch.float64)
    remembered = OwnItems(own, products(vectors, table[own]).amax(1), memory)
    found = sampled_softmax_loss(vectors, table[labels], table[negatives], labels, negatives, expected, 0.5, remembered)
    assert found.item() == pytest.approx(
        bare_loop(vectors, table, labels, negatives, expected, own, memory, temperature=0.5), rel=1e-6
    )


def bare_loop(
    vectors: Tensor,
    table: Tensor,
    labels: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
    own: Tensor,
    memory: Tensor,
    *,
    temperature: float,
) -> float:
    total = 0.0
    for user in range(len(vectors)):
        remembered = {int(item): float(r) for item, r in zip(own[user], memory[user], strict=True) if item}

        def score(item: int, user: int = user, remembered: dict[int, float] = remembered) -> float:
            best = max(float(v @ table[item]) for v in vectors[user])
            return (best + remembered.get(item, 0.0)) / temperature

        label = int(labels[user])
        others = sum(math.exp(score(item)) for item in remembered if item != label)
        for item, correction in zip(negatives.tolist(), log_expected.tolist(), strict=True):
            if item != label and item not in remembered:
                others += math.exp(score(item) - correction)
        total += math.log(math.exp(score(label)) + others) - score(label)
    return total / len(vectors)


def test_the_gradient_of_the_loss_with_own_items_equals_finite_differences() -> None:
    g = generator(5)
    vectors = torch.randn(2, 3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    table = torch.randn(8, 4, generator=g, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 2, generator=g, dtype=torch.float64, requires_grad=True)
    labels, negatives = torch.tensor([2, 3]), torch.tensor([4, 5, 6, 2])
    own = torch.tensor([[2, 4], [7, 0]])

    def run(vectors: Tensor, table: Tensor, memory: Tensor) -> Tensor:
        items = OwnItems(own, products(vectors, table[own]).amax(1), memory)
        zero = torch.zeros(4, dtype=torch.float64)
        return sampled_softmax_loss(vectors, table[labels], table[negatives], labels, negatives, zero, 0.7, items)

    assert torch.autograd.gradcheck(run, (vectors, table, memory))


def test_tiles_of_users_do_not_change_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss_of_a_step() -> float:
        w = given_world(history="distinct")
        given_memory_that_counts(w)
        samples = Samples(torch.tensor([0, 0, 1]), torch.tensor([3, 5, 10]))
        return trainer(w).train_step(w.sequences, samples).item()

    whole = loss_of_a_step()
    monkeypatch.setattr(losses, "TILE_SCORES", 1)
    assert loss_of_a_step() == pytest.approx(whole, rel=1e-6)


def test_contained_finds_every_copy_of_an_own_item() -> None:
    negatives = torch.tensor([9, 4, 9, 2])
    assert contained(*places(negatives, torch.tensor([[9, 3], [0, 2]]))).tolist() == [
        [True, False, True, False],
        [False, False, False, True],
    ]


@settings(deadline=None, max_examples=80)
@given(
    negatives=st.lists(st.integers(1, 12), min_size=1, max_size=9),
    rows=st.lists(st.lists(st.integers(0, 14), min_size=3, max_size=3), min_size=1, max_size=4),
    whole=st.booleans(),
)
def test_contained_is_what_a_loop_finds(negatives: list[int], rows: list[list[int]], whole: bool) -> None:
    drawn = list(range(min(negatives), max(negatives) + 1)) if whole else negatives
    found = contained(*places(torch.tensor(drawn), torch.tensor(rows)))
    assert found.tolist() == [[item in row for item in drawn] for row in rows]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_items_left_out_are_no_negatives(data: st.DataObject) -> None:
    g = generator(data.draw(st.integers(0, 99)))
    vectors = torch.randn(3, 2, 4, generator=g, dtype=torch.float64)
    table = torch.randn(9, 4, generator=g, dtype=torch.float64)
    left_out = torch.tensor(
        data.draw(st.lists(st.lists(st.integers(0, 8), min_size=2, max_size=2), min_size=3, max_size=3))
    )
    labels, negatives = torch.tensor([2, 3, 4]), torch.randint(2, 9, (6,), generator=g)
    expected = torch.randn(6, generator=g, dtype=torch.float64)
    found = sampled_softmax_loss(
        vectors, table[labels], table[negatives], labels, negatives, expected, 0.5, left_out=left_out
    )
    total = 0.0
    for user, label in enumerate(labels.tolist()):
        best = (vectors[user] @ table.T).amax(0) / 0.5
        kept = [
            math.exp(float(best[item]) - float(correction))
            for item, correction in zip(negatives.tolist(), expected.tolist(), strict=True)
            if item != label and item not in left_out[user].tolist()
        ]
        total += math.log(math.exp(float(best[label])) + sum(kept)) - float(best[label])
    assert found.item() == pytest.approx(total / 3, rel=1e-6)


@pytest.mark.parametrize("labels_per_window", [None, 5])
def test_a_step_leaves_out_what_lists_leave_out(labels_per_window: int | None) -> None:
    """With repeat: never the loss is a softmax over all items that the user has not had, and over all with none."""
    losses = {}
    for repeat in ("none", "never"):
        w = world([[2, 3, 4, 5]], 9, features=False, profile=False, repeat=repeat, history="newest")
        retriever = MINDRetriever.of(w.model, w.bags)
        by_hand = []
        for end in [3] if labels_per_window is None else [1, 2, 3]:
            history = windows(w.sequences, torch.tensor([0]), torch.tensor([end]), w.model.view)
            interests, own = retriever.interests(history)
            scores = (own_vectors(interests, own)[0] @ retriever.item_vectors.T).amax(0)
            candidates = [i for i in range(2, 9) if repeat == "none" or i not in w.sequences.items[:end].tolist()]
            by_hand.append(float(scores[candidates].logsumexp(0) - scores[int(w.sequences.items[end])]))
        step = trainer(w, LossConfig(kind="full"), labels_per_window=labels_per_window)
        losses[repeat] = float(step.train_step(w.sequences, Samples(torch.tensor([0]), torch.tensor([3]))))
        assert losses[repeat] == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    assert losses["never"] < losses["none"]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("labels_per_window", [None, 3])
def test_what_is_computed_once_an_item_is_what_it_is_for_each_behaviour(
    monkeypatch: pytest.MonkeyPatch, normalize: bool, labels_per_window: int | None
) -> None:
    """The loss and the weights after a step, beside own items that are scored one behaviour at a time."""

    def plainly(
        self: Objective, ids: Tensor, batch: StepBatch, _: Tensor, behaviours: Tensor, vectors: Tensor
    ) -> OwnItems:
        scores = products(vectors, self._model[0].score_vectors(behaviours)).amax(1)
        memory = self.encoder.memory
        assert batch.traits is not None
        return OwnItems(ids, scores, memory(memory.of_items(behaviours), batch.traits, scores))

    found = []
    for plain in (False, True):
        with monkeypatch.context() as patched:
            if plain:
                patched.setattr(Objective, "_remembered", plainly)
            w = given_world(normalize_items=normalize, history="newest")
            given_memory_that_counts(w)
            step = trainer(w, LossConfig(kind="full"), labels_per_window=labels_per_window)
            losses = [
                step.train_step(w.sequences, Samples(torch.tensor([0, 1]), torch.tensor([5, 10]))) for _ in range(2)
            ]
            found.append([*losses, *(value for value in w.model.state_dict().values())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_training_learns_to_remember_what_is_bought_again() -> None:
    """Users who buy two items of their own over and over, of a catalogue in which nothing else tells them apart."""
    g = generator(1)
    lists = []
    for _ in range(60):
        mine = 2 + torch.randperm(60, generator=g)[:2]
        lists.append(mine[torch.randint(0, 2, (12,), generator=g)].tolist())
    w = world(lists, 62, features=False, profile=False, repeat="memory", history="distinct", normalize_items=True,
              normalize_interests=True, temperature=0.1)  # fmt: skip
    trained = trainer(w, LossConfig(uniform_negatives=30, popularity_negatives=0))
    samples = Samples(torch.arange(60), w.sequences.offsets[1:] - 1)
    for _ in range(40):
        trained.train_step(w.sequences, samples)
    own, log_count = w.model.encoder.memory, TRAITS.index("log count")
    traits = torch.zeros(1, 1, len(TRAITS))
    nowhere = torch.zeros(1, 1)
    once = own(nowhere, traits, nowhere).item()
    traits[..., log_count], traits[..., TRAITS.index("again")] = math.log(6), 1.0
    often = own(nowhere, traits, nowhere).item()
    assert often > 0.2  # in cosines: what has come six times stands far ahead
    assert often > once

"""Lists by rules: nobody gets what is not allowed, caps reach through the whole catalogue, company changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mind_core import list_rules
from mind_core.diversity import Cap
from mind_core.hits import TopList
from mind_core.inference import MINDRetriever, PopularityRetriever, recommend_shelves
from mind_core.list_rules import ListRules, interest_candidates, ruled_shelves
from mind_core.sequences import Sequences
from mind_core.shelves import Shelf
from tests.mind_core.given import generator, random_sequences, world

ITEMS = 300
SIZES: dict[Shelf, int] = {"all": 10, "again": 4, "new": 10}
KINDS = torch.randint(0, 5, (ITEMS,), generator=generator(1))
ALLOWED = torch.rand(ITEMS, generator=generator(2)) < 0.5

RULES: dict[str, ListRules] = {
    "filter": ListRules(allowed=ALLOWED),
    "cap": ListRules(caps=(Cap(KINDS, 2),)),
    "greedy": ListRules(policy="greedy", weight=0.05, category=KINDS, allowed=ALLOWED),
    "quota": ListRules(policy="quota", places=2, caps=(Cap(KINDS, 3),)),
    "round_robin": ListRules(policy="round_robin", allowed=ALLOWED),
}


@pytest.fixture(scope="module", params=["none", "memory"])
def given(request: pytest.FixtureRequest) -> tuple[MINDRetriever, Sequences]:
    """A model of three interests, with a memory or without, and 60 users."""
    w = world(random_sequences(60, ITEMS, longest=20), ITEMS, repeat=request.param, normalize_items=True)
    if request.param == "memory":
        with torch.no_grad():
            w.model.encoder.memory.linear.weight.normal_(0, 0.3, generator=generator(5))
    return MINDRetriever.of(w.model.eval(), w.bags), w.sequences


def made(given: tuple[MINDRetriever, Sequences], users: Tensor, rules: ListRules) -> dict[Shelf, TopList]:
    return ruled_shelves(*given, users, SIZES, rules)


def same(one: TopList, other: TopList) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", RULES)
def test_a_users_lists_are_the_same_bits_in_any_company(given: tuple[MINDRetriever, Sequences], name: str) -> None:
    everyone = torch.arange(60)
    together = made(given, everyone, RULES[name])
    for some in (everyone[:1], everyone[17:18], everyone[40:], torch.tensor([59, 3])):
        alone = made(given, some, RULES[name])
        for shelf, found in together.items():
            assert same(alone[shelf], TopList(*(column[some] for column in found)))


@pytest.mark.parametrize("name", RULES)
def test_shelves_hold_what_is_theirs_and_allowed_and_within_the_cap(
    given: tuple[MINDRetriever, Sequences], name: str
) -> None:
    rules, (_, sequences) = RULES[name], given
    for shelf, found in made(given, torch.arange(60), rules).items():
        for user, items in enumerate(found.items.tolist()):
            listed = [item for item in items if item]
            history = set(sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]].tolist())
            assert len(set(listed)) == len(listed)
            assert shelf == "all" or {item in history for item in listed} <= {shelf == "again"}
            assert rules.allowed is None or all(rules.allowed[item] for item in listed)
            assert all(int((KINDS[listed] == kind).sum()) <= cap.limit for cap in rules.caps for kind in range(5))
            assert shelf == "again" or len(listed) == min(10, *(5 * cap.limit for cap in rules.caps), 10)


def test_a_lambda_of_zero_is_the_best_match(given: tuple[MINDRetriever, Sequences]) -> None:
    everyone = torch.arange(60)
    expected = recommend_shelves(*given, everyone, SIZES)
    found = made(given, everyone, ListRules(policy="greedy", weight=0.0, category=KINDS))
    assert all(same(found[shelf], expected[shelf]) for shelf in SIZES)
    # and through the choice itself, with a lambda that cannot outweigh anything
    tiny = made(given, everyone, ListRules(policy="greedy", weight=1e-12, category=KINDS))
    assert all(torch.equal(tiny[shelf].items, expected[shelf].items) for shelf in SIZES)


def test_a_cap_reaches_as_deep_as_it_must(
    given: tuple[MINDRetriever, Sequences], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given candidates so few that the cap leaves every list short at first
    monkeypatch.setattr(list_rules, "FEWEST", 1)
    monkeypatch.setattr(list_rules, "CANDIDATES", 1)
    monkeypatch.setattr(list_rules, "DEEPER", 2)
    kinds = (torch.arange(ITEMS) >= 20).long()  # twenty items of one kind, the others of another
    everyone = torch.arange(60)
    whole = recommend_shelves(*given, everyone, {"all": ITEMS})["all"]
    found = made(given, everyone, ListRules(caps=(Cap(kinds, 5),)))["all"]
    for user in range(60):
        counts, expected = [0, 0], []
        for item in whole.items[user].tolist():
            if item and counts[kinds[item]] < 5:
                counts[kinds[item]] += 1
                expected.append(item)
        assert found.items[user].tolist() == expected[:10]


def test_lists_are_not_looked_for_beyond_what_the_caps_let_in(
    given: tuple[MINDRetriever, Sequences], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = ListRules(caps=(Cap(KINDS, 1), Cap(torch.full((ITEMS,), -1), 1)))
    assert rules.longest == 5
    assert rules.within(KINDS == 2).longest == 1
    assert ListRules().longest == float("inf")
    monkeypatch.setattr(list_rules, "DEEPER", None)  # nobody multiplies by it
    assert (made(given, torch.arange(60), rules)["all"].items > 0).sum(1).tolist() == [5] * 60


def test_the_users_that_are_looked_at_together_do_not_show(
    given: tuple[MINDRetriever, Sequences], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made(given, torch.arange(60), RULES["quota"])
    monkeypatch.setattr(list_rules, "CANDIDATES_AT_ONCE", 1)
    found = made(given, torch.arange(60), RULES["quota"])
    assert all(same(found[shelf], expected[shelf]) for shelf in SIZES)


def test_interests_search_by_themselves(given: tuple[MINDRetriever, Sequences]) -> None:
    retriever, sequences = given
    items, scores = interest_candidates(retriever, sequences, torch.arange(60), "all", 5)
    best = recommend_shelves(retriever, sequences, torch.arange(60), {"all": 5})["all"]
    # the best of all interests' lists is the best match, and its interest is the one that names it
    top = scores.amax((1, 2))
    assert torch.allclose(top, best.scores[:, 0], atol=1e-6)
    for user in range(60):
        own = int((scores[user, :, 0] > float("-inf")).sum())
        assert best.items[user, 0] in items[user, int(best.interest[user, 0])]
        assert own == min(3, max(1, int(sequences.lengths[user]).bit_length() - 1))
        assert not items[user, own:].any()


def test_rules_hold_for_a_model_of_one_constant_interest() -> None:
    retriever = PopularityRetriever(torch.arange(ITEMS), 8)
    sequences = world(random_sequences(3, ITEMS, longest=9), ITEMS).sequences
    for rules in RULES.values():
        found = ruled_shelves(retriever, sequences, torch.arange(3), {"all": 6}, rules)["all"]
        assert (found.items > 0).all()
        assert (found.interest == 0).all()


def test_nobody_gets_a_list_of_nothing_to_choose_from(given: tuple[MINDRetriever, Sequences]) -> None:
    nothing = torch.zeros(ITEMS, dtype=torch.bool)
    for rules in RULES.values():
        for found in made(given, torch.arange(3), rules.within(nothing)).values():
            assert not found.items.any()


@pytest.mark.parametrize("settings", [{"policy": "greedy"}, {"policy": "greedy", "weight": 1.0}])
def test_greedy_needs_a_category(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="category"):
        ListRules(**settings)

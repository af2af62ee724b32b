"""Lists of requests: the same as in batch, whatever else is asked at the same time."""

import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.schema import ListsConfig
from pipelines.lists.rules import read_rules
from pipelines.models.answers import Answer, Answerer
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.limits import RequestError
from tests.pipelines.small_model import ITEMS, PROFILE, save_small


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    return load_model(save_small(tmp_path_factory.mktemp("models") / "small"))


@pytest.fixture(scope="module")
def answerer(model: SavedModel) -> Answerer:
    return Answerer(model)


def ask(answerer: Answerer, **fields: object) -> Answer:
    return answerer.answer([answerer.reader.read(fields)])[0]


@pytest.mark.parametrize("seen", ["filter", "keep"])
def test_the_list_is_that_of_the_batch(answerer: Answerer, model: SavedModel, seen: str) -> None:
    histories = [[101, 105, 101, 120], [140], list(range(101, 141))]
    lists = model.recommend(model.encode(pa.array(histories)), 10, exclude_seen=seen == "filter")
    for row, history in enumerate(histories):
        expected = lists.filter(pa.compute.equal(lists["user"], row))
        answer = ask(answerer, history=history, n=10, seen=seen)
        assert answer.ids == expected["id"].to_pylist()
        assert answer.scores == expected["score"].to_pylist()
        assert answer.interests == expected["interest"].to_pylist()
        assert [each["title"] for each in answer.shown] == expected["show_title"].to_pylist()


HISTORIES = st.lists(st.integers(95, 145), max_size=15)
REQUESTS = st.fixed_dictionaries(
    {"history": HISTORIES, "n": st.integers(1, 60)},
    optional={
        "exclude": st.lists(st.integers(95, 145), max_size=30),
        "only": st.lists(st.integers(95, 145), max_size=30),
        "seen": st.sampled_from(["filter", "keep"]),
        "profile": st.sampled_from([{}, PROFILE, {"vip": False}]),
        "explain": st.booleans(),
    },
)


@given(st.lists(REQUESTS, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_an_answer_depends_on_its_own_request_alone(answerer: Answerer, asked: list[dict[str, object]]) -> None:
    together = answerer.answer([answerer.reader.read(each) for each in asked])
    assert together == [ask(answerer, **each) for each in asked]


@given(REQUESTS)
@settings(max_examples=60, deadline=None)
def test_a_list_is_what_is_left_of_the_whole_ranking(answerer: Answerer, asked: dict[str, object]) -> None:
    whole = {**asked, "n": ITEMS, "exclude": [], "only": None}
    kept = [
        item
        for item in ask(answerer, **whole).ids
        if item not in asked.get("exclude", []) and item in asked.get("only", range(200))  # type: ignore[operator]
    ]
    assert ask(answerer, **asked).ids == kept[: int(str(asked["n"]))]


def test_unknown_items_are_skipped_and_counted(answerer: Answerer) -> None:
    answer = ask(answerer, history=[7, 101, 8, 105], n=5)
    assert answer.unknown == 2
    assert answer.ids == ask(answerer, history=[101, 105], n=5).ids
    assert answer.fallback is None


@pytest.mark.parametrize("history", [[], [7, 8]])
def test_without_a_known_item_the_list_is_the_popular_one_and_says_so(answerer: Answerer, history: list[int]) -> None:
    answer = ask(answerer, history=history, n=3, exclude=[102], explain=True)
    assert (answer.ids, answer.fallback, answer.unknown) == ([101, 103, 104], "popular", len(history))
    assert answer.interests == [-1, -1, -1]
    assert answer.scores == pytest.approx(np.log1p([40, 38, 37]))


def test_a_profile_matters_and_an_absent_feature_is_a_missing_one(answerer: Answerer) -> None:
    alone, missing, known = (ask(answerer, history=[101], profile=each, n=ITEMS)
                             for each in ({}, dict.fromkeys(PROFILE), PROFILE))  # fmt: skip
    assert alone.scores == missing.scores
    assert alone.scores != known.scores


@pytest.mark.parametrize("name", PROFILE)
def test_every_type_of_profile_feature_is_told_apart(answerer: Answerer, name: str) -> None:
    values = {"group": "a", "vip": False, "level": 0.5, "code": 3, "since": "2020-01-01", "tags": ["y"], "age": 9.0}
    scores = {tuple(ask(answerer, history=[101], profile={name: value}, n=ITEMS).scores)
              for value in (PROFILE[name], values[name], None)}  # fmt: skip
    assert len(scores) == 3


def test_a_reason_names_the_interest_its_share_and_the_behaviours_that_went_there(answerer: Answerer) -> None:
    history = [101, 105, 110, 105]
    answer = ask(answerer, history=history, n=6, explain=True, seen="keep")
    assert answer.why is not None
    shares = {why.interest: why.share for why in answer.why}
    assert sum(shares.values()) <= 1.0001
    for item, interest, why in zip(answer.ids, answer.interests, answer.why, strict=True):
        assert why.interest == interest
        assert why.again == history.count(item)
        assert {named for named, _ in why.behaviours} <= set(history)
        assert [weight for _, weight in why.behaviours] == sorted((w for _, w in why.behaviours), reverse=True)
    request = answerer.reader.read({"history": history})
    assert answerer.why(request, pa.array(answer.ids)) == answer.why


def test_interests_are_the_users_own_and_score_the_list(answerer: Answerer, model: SavedModel) -> None:
    request = answerer.reader.read({"history": [101, 105, 110, 111], "n": 3, "seen": "filter"})
    vectors = answerer.interests(request)
    assert vectors.shape == (2, 8)  # K' = log2 of 4
    answer = answerer.answer([request])[0]
    index = torch.from_numpy(answerer.places.of(pa.array(answer.ids))) + 2
    torch.testing.assert_close(torch.tensor(answer.scores), (model.retriever.item_vectors[index] @ vectors.T).amax(1))
    assert len(answerer.interests(answerer.reader.read({"history": [7]}))) == 0


def test_why_of_an_unknown_item_or_history_is_refused(answerer: Answerer) -> None:
    with pytest.raises(RequestError, match="7: no item of the model"):
        answerer.why(answerer.reader.read({"history": [101]}), pa.array([101, 7]))
    with pytest.raises(RequestError, match="no item that the model knows"):
        answerer.why(answerer.reader.read({"history": [7]}), pa.array([101]))


def test_text_ids_are_answered_in_text(tmp_path_factory: pytest.TempPathFactory) -> None:
    names = pa.array([f"sku {number}" for number in range(ITEMS)])
    answerer = Answerer(load_model(save_small(tmp_path_factory.mktemp("text") / "m", names, profile=False)))
    answer = ask(answerer, history=["sku 3", "nothing"], n=4)
    assert answer.unknown == 1
    assert all(item.startswith("sku ") for item in answer.ids)
    with pytest.raises(RequestError, match="the model has no profile"):
        ask(answerer, history=[], profile={"group": "a"})


def test_batches_of_any_size_have_all_their_answers(answerer: Answerer) -> None:
    histories = [list(each) for each in itertools.islice(itertools.combinations(range(101, 112), 3), 140)]
    answers = answerer.answer([answerer.reader.read({"history": each, "n": 2}) for each in histories])
    assert [len(answer.ids) for answer in answers] == [2] * 140


WHERE = "title != '<0>' and count < 38"


def test_a_filter_lets_in_what_it_says_and_its_mistakes_are_lines(answerer: Answerer) -> None:
    whole = ask(answerer, history=[101, 105], n=ITEMS, seen="keep")
    found = ask(answerer, history=[101, 105], n=ITEMS, seen="keep", where=WHERE)
    assert found.ids == [item for item in whole.ids if item >= 104]  # counts fall from 40 by 1 an item
    assert ask(answerer, history=[], n=2, where=WHERE).ids == [104, 105]
    both = ask(answerer, history=[101], n=ITEMS, where=WHERE, only=[103, 104, 110], exclude=[110])
    assert both.ids == [104]
    for where, line in (("nothing = 1", "nothing"), ("count <", "where: "), ("((((" * 200, "where: "), (5, "where=5")):
        with pytest.raises(RequestError, match=line) as caught:
            ask(answerer, history=[101], where=where)
        assert "\n" not in str(caught.value)


def test_one_and_true_are_two_filters(answerer: Answerer) -> None:
    assert len(ask(answerer, history=[], where="count = 1").ids) == 1
    with pytest.raises(RequestError, match="count"):
        ask(answerer, history=[], where="count = true")


RULES = [
    {"where": WHERE},
    {"cap": {"shelf": 2}},
    {"policy": "round_robin"},
    {"policy": "quota", "quota": 1},
    {"policy": "greedy", "diversity": 0.3, "category": "shelf"},
]


@pytest.mark.parametrize("lists", RULES, ids=str)
def test_rules_of_the_server_hold_for_every_request_alone_and_in_company(
    model: SavedModel, lists: dict[str, object]
) -> None:
    rules = read_rules(ListsConfig.model_validate(lists), model.columns()).rules
    ruled = Answerer(model, rules=rules)
    asked: list[dict[str, object]] = [
        {"history": [101, 105, 110, 140], "n": 8},
        {"history": [102], "n": 5, "exclude": [110, 111]},
        {"history": [101, 120], "n": 8, "only": list(range(100, 125))},
        {"history": [], "n": 6},
        {"history": [101, 105], "n": 4, "where": "count > 5"},
    ]
    together = ruled.answer([ruled.reader.read(each) for each in asked])
    assert together == [ask(ruled, **each) for each in asked]
    lists_of = model.recommend(model.encode(pa.array([[101, 105, 110, 140]])), 8, exclude_seen=True, rules=rules)
    assert together[0].ids == lists_of["id"].to_pylist()
    shelf = {item: place % 4 for place, item in enumerate(model.item_ids.to_pylist())}
    for each, answer in zip(asked, together, strict=True):
        assert not set(answer.ids) & set(each.get("exclude", []))  # type: ignore[call-overload]
        assert "only" not in each or set(answer.ids) <= set(each["only"])  # type: ignore[call-overload]
        if "where" in lists:
            assert min(answer.ids) >= 104
        if "cap" in lists:
            assert max(Counter(shelf[item] for item in answer.ids).values()) <= 2


def test_of_equal_rules_an_allow_list_gives_the_same_scores_as_the_search(answerer: Answerer) -> None:
    whole = ask(answerer, history=[101, 105, 110, 101], n=ITEMS, seen="keep")
    named = ask(answerer, history=[101, 105, 110, 101], n=ITEMS, seen="keep", only=list(range(101, 141)))
    assert named == whole

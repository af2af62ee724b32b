"""Every mistake in a request is one clear line with a status below 500, and costs no more than its length."""

import json
import time
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.models.answers import Answerer
from pipelines.models.artifact import load_model
from pipelines.models.limits import Limits, RequestError
from pipelines.models.requests import Request, RequestReader
from tests.pipelines.small_model import PROFILE, save_small

TEXT_IDS = RequestReader(pa.string(), [])


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    return Answerer(load_model(save_small(tmp_path_factory.mktemp("models") / "small")), Limits(body=200_000))


@pytest.fixture(scope="module")
def reader(answerer: Answerer) -> RequestReader:
    return answerer.reader


def refused(reader: RequestReader, body: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        reader.read_json(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert "\n" not in str(caught.value)
    assert 400 <= caught.value.status < 500
    return caught.value


def test_all_fields_are_read(reader: RequestReader) -> None:
    body = {"history": [101, 102], "n": 3, "profile": {"group": "a"}, "exclude": [103], "only": [104], "seen": "keep",
            "where": "count > 1", "explain": True}  # fmt: skip
    read = reader.read_json(json.dumps(body).encode())
    assert read == Request(
        pa.array([101, 102]), 3, {"group": "a"}, pa.array([103]), pa.array([104]), "count > 1", "keep", explain=True
    )


NO_JSON = [b"", b"{", b'{"history": [1,]}', b"\xff\xfe", b'{"history": [NaN]}', b'{"history": [-Infinity]}',
           b"[" * 10**5, b'{"history":' + b"[" * 1000 + b"]" * 1000 + b"}", b'{"a":' * 10**4 + b"1" + b"}" * 10**4,
           b'{"n":' + b"1" * 5000 + b"}", b'{"history": [], "history": []}']  # fmt: skip


@pytest.mark.parametrize("body", NO_JSON, ids=[str(each[:24]) for each in NO_JSON])
def test_what_is_no_json_is_refused_with_400(reader: RequestReader, body: bytes) -> None:
    assert refused(reader, body).status == 400


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ([], "body=a list: must be a JSON object"),
        (None, "body=null"),
        ({}, "history: is missing"),
        ({"history": None}, "history=null: must be a list"),
        ({"history": "abc"}, "history='abc': must be a list"),
        ({"history": {"a": 1}}, "history=an object: must be a list"),
        ({"history": [101, "x"]}, "history[1]='x': ids must be integers"),
        ({"history": [[101]]}, "history[0]=a list"),
        ({"history": [None]}, "history[0]=null"),
        ({"history": [True]}, "history[0]=true"),
        ({"history": [1.5]}, "history[0]=1.5"),
        ({"history": [1e999]}, "Infinity is no number of JSON"),
        ({"history": [10**30]}, "out of range"),
        ({"history": [], "n": 0}, "n=0: must be an integer from 1 to 1,000"),
        ({"history": [], "n": -1}, "n=-1"),
        ({"history": [], "n": 10**9}, "n=1000000000"),
        ({"history": [], "n": 10**400}, "n=a number of many digits"),
        ({"history": [], "n": None}, "n=null"),
        ({"history": [], "n": "5"}, "n='5'"),
        ({"history": [], "n": True}, "n=true"),
        ({"history": [], "n": 2.5}, "n=2.5"),
        ({"history": [], "n": []}, "n=a list"),
        ({"history": [], "k": 5}, "field 'k': unknown; accepted: history, n"),
        ({"history": [], "x" * 500: 5}, f"field '{'x' * 40}...': unknown"),
        ({"history": [], "profile": []}, "profile=a list"),
        ({"history": [], "profile": {"grup": "a"}}, "profile feature 'grup': unknown; accepted: group, vip"),
        ({"history": [], "profile": {"group": ["a"]}}, "profile.group=a list: must be string"),
        ({"history": [], "profile": {"group": "\ud800"}}, "profile.group="),
        ({"history": [], "profile": {"vip": 1}}, "profile.vip=1: must be bool"),
        ({"history": [], "profile": {"vip": "true"}}, "profile.vip='true': must be bool"),
        ({"history": [], "profile": {"level": "high"}}, "profile.level='high': must be double"),
        ({"history": [], "profile": {"level": True}}, "profile.level=true: must be double"),
        ({"history": [], "profile": {"code": 1.5}}, "profile.code=1.5: must be int64"),
        ({"history": [], "profile": {"code": 2**70}}, "profile.code=1180591620717411303424"),
        ({"history": [], "profile": {"since": "yesterday"}}, "profile.since='yesterday': must be timestamp"),
        ({"history": [], "profile": {"since": 5.5}}, "profile.since=5.5: must be timestamp"),
        ({"history": [], "profile": {"tags": "x"}}, "profile.tags='x': must be a list"),
        ({"history": [], "profile": {"tags": [["x"]]}}, "profile.tags[0]=a list"),
        ({"history": [], "profile": {"age": "old"}}, "profile.age='old': must be a number"),
        ({"history": [], "profile": {"age": True}}, "profile.age=true: must be a number"),
        ({"history": [], "profile": {"age": 10**400}}, "profile.age=a number of many digits"),
        ({"history": [], "seen": "no"}, "seen='no': must be one of filter, keep"),
        ({"history": [], "seen": []}, "seen=a list"),
        ({"history": [], "explain": 1}, "explain=1: must be true or false"),
        ({"history": [], "exclude": 5}, "exclude=5: must be a list"),
        ({"history": [], "only": [{}]}, "only[0]=an object"),
        ({"history": [], "where": 5}, "where=5: must be text"),
        ({"history": [], "where": "(" * 500}, "where: "),
        ({"history": [], "where": "price \ud800 5"}, "where: "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_line_names_the_field_and_what_was_found(reader: RequestReader, body: Any, line: str) -> None:
    assert line in str(refused(reader, body))


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b" " * 200_001, "body: 200,001 bytes: must be at most 200,000"),
        (json.dumps({"history": [1] * 10_001}).encode(), "history: 10,001 ids: must be at most 10,000"),
        (json.dumps({"history": [], "exclude": [1] * 10_001}).encode(), "exclude: 10,001 ids"),
        (json.dumps({"history": [], "where": "a" * 1_001}).encode(), "where: 1,001 letters"),
        (json.dumps({"history": [], "profile": {"tags": ["x"] * 1_001}}).encode(), "profile.tags: 1,001 values"),
    ],
    ids=["body", "history", "exclude", "where", "tags"],
)
def test_what_is_too_long_is_refused_with_413(reader: RequestReader, body: bytes, line: str) -> None:
    error = refused(reader, body)
    assert error.status == 413
    assert line in str(error)


def test_ids_may_be_written_as_text_or_as_whole_floats_and_text_ids_as_integers(reader: RequestReader) -> None:
    assert reader.read({"history": ["101", 102.0, np.int32(103)]}).history.to_pylist() == [101, 102, 103]
    assert reader.read({"history": np.array([101, 102])}).history.to_pylist() == [101, 102]
    assert TEXT_IDS.read({"history": ["a", 7, "007"]}).history.to_pylist() == ["a", "7", "007"]
    for value in (1.5, None, [1], "\ud800", True):
        with pytest.raises(RequestError, match="ids must be text"):
            TEXT_IDS.read({"history": [value]})


def test_a_history_is_cut_to_its_newest_where_that_is_asked_for(answerer: Answerer) -> None:
    reader = RequestReader(pa.int64(), [], Limits(history=2))
    read = reader.read({"history": [1, 2, 3, 4, 5]}, cut=True)
    assert (read.history.to_pylist(), read.cut) == ([4, 5], 3)


def test_profile_values_keep_the_types_of_the_dataset(reader: RequestReader) -> None:
    as_json = {**PROFILE, "since": "2021-01-01T00:00:00", "code": "7", "level": 1.5}
    assert reader.profile(as_json) == PROFILE
    assert reader.profile({"level": 2, "age": 3, "code": 7.0}) == {"level": 2.0, "age": 3.0, "code": 7}
    assert reader.profile({"since": datetime(2021, 1, 1)}) == {"since": datetime(2021, 1, 1)}


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_value_is_missing_in_every_feature(reader: RequestReader, missing: Any) -> None:
    names = [name for name in PROFILE if name != "tags" or missing is None]
    assert reader.profile(dict.fromkeys(names, missing)) == dict.fromkeys(names)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from([101, 0, -1, 10**9])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
FIELDS = st.sampled_from(["history", "n", "profile", "exclude", "only", "seen", "explain", "histori", ""])
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(FIELDS, JSON, max_size=5).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"history": st.lists(st.integers(95, 145), max_size=20) | JSON},
        optional={
            "n": st.integers(-2, 1100) | JSON,
            "profile": st.dictionaries(st.sampled_from([*PROFILE, "no"]), JSON | st.sampled_from(["a", True, 7, 1.5]))
            | JSON,
            "exclude": st.lists(st.integers(95, 145), max_size=50) | JSON,
            "only": st.lists(st.integers(95, 145), max_size=50) | JSON,
            "where": st.sampled_from(["count > 5", "shelf = 'shelf 1'", "title in ('<3>')", "no = 1", "count = 'x'"])
            | st.text(alphabet="()'\"=<>and or not in count shelf 1,", max_size=40)
            | JSON,
            "seen": st.sampled_from(["filter", "keep"]) | JSON,
            "explain": st.booleans() | JSON,
        },
    ).map(lambda value: json.dumps(value).encode()),
)


def check(answerer: Answerer, body: bytes) -> None:
    """A body is answered, or refused in one line, and at once."""
    started = time.process_time()
    refusal, request, answer = None, None, None
    try:
        request = answerer.reader.read_json(body)
        (answer,) = answerer.answer([request])
    except RequestError as error:  # a filter meets the columns where it is answered
        refusal = error
    if request is None or answer is None:
        assert refusal is not None
        assert "\n" not in str(refusal)
        assert len(str(refusal)) < 1_000
        assert 400 <= refusal.status < 500
        return
    assert len(answer.ids) <= request.n
    assert len(set(answer.ids)) == len(answer.ids)
    assert np.isfinite(answer.scores).all()
    assert time.process_time() - started < 5  # on a machine that others use too


@given(BODIES)
@settings(max_examples=400, deadline=None)
def test_any_body_is_answered_or_refused_in_one_line_and_at_once(answerer: Answerer, body: bytes) -> None:
    check(answerer, body)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(BODIES)
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_twenty_thousand_bodies_are_answered_or_refused(answerer: Answerer, body: bytes) -> None:
    check(answerer, body)

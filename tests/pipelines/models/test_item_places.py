"""Looking up raw ids: right for every type, and whatever the hashes are."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.models import item_places
from pipelines.models.item_places import ItemPlaces

IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=30).map(lambda ids: pa.array(ids, pa.int64())),
    st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=30).map(lambda ids: pa.array(ids, pa.uint64())),
    st.lists(st.text(max_size=8), unique=True, max_size=30).map(lambda ids: pa.array(ids, pa.string())),
)


@given(IDS, st.data())
def test_a_known_id_has_its_place_and_any_other_none(ids: pa.Array, data: st.DataObject) -> None:
    known = data.draw(st.lists(st.integers(0, max(0, len(ids) - 1)), max_size=20 if len(ids) else 0))
    assert ItemPlaces(ids).of(ids.take(pa.array(known, pa.int64()))).tolist() == known
    half = len(ids) // 2
    others = ids.slice(half)
    assert ItemPlaces(ids.slice(0, half)).of(others).tolist() == [-1] * len(others)


def test_ids_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_places, "hash64", lambda ids: np.full(len(ids), 7, np.uint64))
    assert ItemPlaces(pa.array(["a", "b"])).of(pa.array(["b", "c", "a"])).tolist() == [1, -1, 0]
    assert ItemPlaces(pa.array(["a"])).of(pa.array(["b", "a"])).tolist() == [-1, 0]

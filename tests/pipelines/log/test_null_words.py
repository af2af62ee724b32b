from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.config.schema import NULL_WORDS, EventSource
from pipelines.log.normalise import MISSING_USER, normalise
from pipelines.log.null_words import without_nulls
from pipelines.log.sources import read_source


def source(**fields: object) -> EventSource:
    return EventSource.model_validate({"path": "log", **fields})


@pytest.mark.parametrize("word", [*NULL_WORDS, "", "  ", "\t", " NA "])
def test_a_null_written_as_text_is_no_user(word: str) -> None:
    block = pa.table({"user": [word, "7", word], "item": ["a", "b", "c"], "time": [1, 2, 3]})
    found = normalise(block, source(), "number", "log")
    assert found.events["user"].to_pylist() == ["7"]
    assert found.set_aside == {MISSING_USER: 2}
    assert found.quarantine["user"].to_pylist() == [word, word], "as it was"


def test_the_list_may_be_another_one() -> None:
    block = pa.table({"user": ["NA", "-1", "0"], "item": ["a"] * 3, "time": [1, 2, 3]})
    for words, users in (([], ["NA", "-1", "0"]), ([-1, "0"], ["NA"]), (["x"], ["NA", "-1", "0"])):
        assert normalise(block, source(null_values=words), "number", "log").events["user"].to_pylist() == users


def test_numbers_may_stand_for_missing_values() -> None:
    for kind in (pa.int64(), pa.int8(), pa.float32(), pa.float64()):
        assert without_nulls(pa.array([7, -1, None], kind), ["NA", -1, 1e300]).to_pylist() == [7, None, None]
    assert without_nulls(pa.array([1.0, 1.7976931348623157e308]), [1.7976931348623157e308]).to_pylist() == [1.0, None]
    assert without_nulls(pa.array(["999", "999.0"]), [999.0, "999.0"]).to_pylist() == [None, None]
    assert without_nulls(pa.array([True, None]), [1]).to_pylist() == [True, None]


def test_what_is_only_shown_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,kind,title\n7,NA,None\n8,x,\n")
    table, _ = read_source(source(path=str(tmp_path / "items.csv")), ["id", "kind", "title"], as_they_are=["title"])
    assert table.to_pylist() == [{"id": 7, "kind": None, "title": "None"}, {"id": 8, "kind": "x", "title": None}]

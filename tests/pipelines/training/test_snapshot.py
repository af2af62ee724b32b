"""A kill while Ray Train writes its record of checkpoints: the run goes on from the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.training.snapshot import KEPT, RECORD, keep_record, mend_record

WHOLE, NEWER = '{"a": 1}', '{"a": 2}'


@pytest.mark.parametrize("torn", ["", '{"a": ', "\x00\x00"])
def test_a_torn_record_is_the_last_whole_one_again(tmp_path: Path, torn: str) -> None:
    (tmp_path / RECORD).write_text(WHOLE)
    keep_record(tmp_path)
    (tmp_path / RECORD).write_text(torn)
    keep_record(tmp_path)  # as another report comes: what is torn is never kept
    mend_record(tmp_path)
    assert (tmp_path / RECORD).read_text() == WHOLE


def test_a_torn_record_without_a_whole_one_is_none(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("")
    mend_record(tmp_path)
    assert not (tmp_path / RECORD).exists()


def test_a_whole_record_stays_and_none_is_made(tmp_path: Path) -> None:
    mend_record(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / RECORD).write_text(NEWER)
    (tmp_path / KEPT).write_text(WHOLE)
    mend_record(tmp_path)
    assert (tmp_path / RECORD).read_text() == NEWER

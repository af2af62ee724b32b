"""A folder appears whole or not at all, and what a killed process left behind is put right by the next one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pipelines.storage.publish import published

DEAD = 2**22 + 1  # above any process id


def left_behind(target: Path, suffix: str = "") -> Path:
    folder = target.with_name(f".{target.name}.partial-{socket.gethostname()}-{DEAD}{suffix}")
    folder.mkdir(parents=True)
    (folder / "old").touch()
    return folder


def test_nothing_half_written_stays_after_an_error(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(ZeroDivisionError), published(target) as folder:
        (folder / "half").write_text(str(1 // 0))
    assert list(tmp_path.iterdir()) == []


def test_a_kill_between_the_two_renames_loses_neither_version(tmp_path: Path) -> None:
    target = tmp_path / "model"
    left_behind(target, ".replaced")
    with pytest.raises(ZeroDivisionError), published(target):
        _ = 1 // 0
    assert (target / "old").exists(), "the only copy comes back"


def test_a_kill_before_the_old_version_was_removed_does_not_block_the_next(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    left_behind(target, ".replaced")
    with published(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (target / "new").exists()

"""A folder appears whole or not at all, and what a killed process left behind is put right by the next one."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.storage.publish import Mark, published, require_own

DEAD = 2**22 + 1  # above any process id
MARK = Mark("mark.json")


def left_behind(target: Path, suffix: str = "") -> Path:
    folder = target.with_name(f".{target.name}.partial-{socket.gethostname()}-{DEAD}{suffix}")
    folder.mkdir(parents=True)
    (folder / "old").touch()
    sign(folder, target.name)
    return folder


def sign(folder: Path, name: str) -> None:
    (folder / MARK.file).write_text(json.dumps({"name": name}))


def test_nothing_half_written_stays_after_an_error(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(ZeroDivisionError), published(target, MARK) as folder:
        (folder / "half").write_text(str(1 // 0))
    assert list(tmp_path.iterdir()) == []


def test_a_kill_between_the_two_renames_loses_neither_version(tmp_path: Path) -> None:
    target = tmp_path / "model"
    left_behind(target, ".replaced")
    with pytest.raises(ZeroDivisionError), published(target, MARK):
        _ = 1 // 0
    assert (target / "old").exists(), "the only copy comes back"


def test_a_kill_before_the_old_version_was_removed_does_not_block_the_next(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    left_behind(target, ".replaced")
    with published(target, MARK) as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (target / "new").exists()


def test_an_older_one_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("first", "second"):
        with published(target, MARK) as folder:
            (folder / content).touch()
            sign(folder, "model")
    assert sorted(path.name for path in target.iterdir()) == [MARK.file, "second"]


@pytest.mark.parametrize("mark", [None, "", "[]", "{}", '{"name": "another"}', '{"name": 3}', "null", "\\udcff"])
def test_a_folder_that_is_not_marked_with_its_own_name_is_refused_before_anything_is_done(
    tmp_path: Path, mark: str | None
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "a thesis.txt").write_text("precious")
    if mark is not None:
        (target / MARK.file).write_text(mark)
    with pytest.raises(UserError, match=r"model: holds .*, and no mark.json that says it is model") as caught:
        published(target, MARK).__enter__()
    assert "\n" not in str(caught.value)
    assert (target / "a thesis.txt").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing was begun"


def test_a_file_of_that_name_is_refused_and_an_empty_folder_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="is a file"):
        require_own(tmp_path / "file", MARK)
    (tmp_path / "empty").mkdir()
    with published(tmp_path / "empty", MARK) as folder:
        sign(folder, "empty")
    assert MARK.is_on(tmp_path / "empty")


def test_what_a_killed_writer_left_is_no_reason_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "export" / "items").mkdir(parents=True)
    require_own(tmp_path / "export", MARK, ["items", "users"])
    (tmp_path / "export" / "other").touch()
    with pytest.raises(UserError, match="holds other"):
        require_own(tmp_path / "export", MARK, ["items", "users"])

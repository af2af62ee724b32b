"""A file that is there whole or not at all."""

from pathlib import Path

import pytest

from pipelines.storage.atomic import whole


def refused(path: Path) -> None:
    with whole(path) as aside:
        aside.write_text("half")
        raise OSError(28, "No space left on device")


def test_a_write_that_a_disk_refuses_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        refused(tmp_path / "a.json")
    assert caught.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []

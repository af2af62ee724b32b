"""Imports in a thread: done at the block's end, and never an error of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.cluster.beside import imported_beside


def test_modules_are_there_at_the_end_of_the_block_and_one_that_is_not_there_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_module_of_a_test.py").write_text("import time; time.sleep(.1); value = 1")
    monkeypatch.syspath_prepend(tmp_path)
    with imported_beside("no_such_module_at_all", "slow_module_of_a_test"):
        import slow_module_of_a_test  # type: ignore[import-not-found]  # waits for the thread

        assert slow_module_of_a_test.value == 1
    assert "slow_module_of_a_test" in sys.modules


def test_the_blocks_error_is_the_one_that_is_seen() -> None:
    with pytest.raises(ZeroDivisionError), imported_beside("no_such_module_at_all"):
        raise ZeroDivisionError

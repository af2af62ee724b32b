"""The order of the tests where several processes take them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.conftest import long_files_first


def item(file: str, name: str, *marks: str) -> Any:
    return SimpleNamespace(path=Path(file), name=name, get_closest_marker=lambda mark: mark if mark in marks else None)


def test_files_that_start_ray_come_first_and_keep_their_order() -> None:
    items = [item("a", "1"), item("b", "2"), item("b", "3", "ray"), item("c", "4", "slow"), item("d", "5", "ray")]
    assert [each.name for each in long_files_first(items)] == ["2", "3", "5", "1", "4"]

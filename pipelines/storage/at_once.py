"""Many short waits for a store at the same time: most of the time of a remote request is waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AT_A_TIME = 16
T = TypeVar("T")
R = TypeVar("R")


def at_once(task: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """Run ``task`` of each thing; results in order. What one raises is raised here.

    >>> at_once(len, ["a", "bc"])
    [1, 2]
    """
    waiting = list(things)
    if not waiting:
        return []
    with ThreadPoolExecutor(min(AT_A_TIME, len(waiting))) as pool:
        return list(pool.map(task, waiting))

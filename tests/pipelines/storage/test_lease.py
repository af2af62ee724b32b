"""A lease in a store whose uploads take as long as they like: never two at once, and never nobody for long."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.storage import lease


class Store:
    """Objects in memory. An upload shows only when it is complete, and takes `seconds()`; `away` cuts a node off."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self.objects: dict[str, str] = {}
        self.away: set[Path] = set()

    def push(self, path: Path) -> None:
        text = path.read_text()
        time.sleep(self.seconds())
        self._require(path.parent)
        self.objects[path.name] = text

    def remove(self, path: Path) -> None:
        self._require(path.parent)
        self.objects.pop(path.name, None)

    def names(self, folder: Path) -> list[str]:
        self._require(folder)
        return sorted(self.objects)

    def renew(self, path: Path) -> Path:
        self._require(path.parent)
        if (text := self.objects.get(path.name)) is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text)
        return path

    def _require(self, node: Path) -> None:
        if node in self.away:
            raise UserError("the store does not answer")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Store], Store]:
    def used(store: Store) -> Store:
        for name in ("push", "remove", "names", "renew"):
            monkeypatch.setattr(lease, name, getattr(store, name))
        monkeypatch.setattr(lease, "BEAT_S", 0.1)
        monkeypatch.setattr(lease, "DEAD_S", 1.0)
        monkeypatch.setattr(lease, "BACK_S", 0.1)
        return store

    return used


def node(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name / "lock"


@pytest.mark.parametrize("seed", range(4))
def test_of_many_who_want_it_at_once_never_two_have_it(
    use: Callable[[Store], Store], tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    use(Store(lambda: rng.choice([0, 0.01, 0.2])))
    inside, most, had = set[int](), [0], [0]

    def contend(number: int) -> None:
        file = node(tmp_path, str(number))
        for _ in range(3):
            with suppress(UserError), lease.leased(file, "busy"):
                inside.add(number)
                most[0], had[0] = max(most[0], len(inside)), had[0] + 1
                time.sleep(0.05)
                inside.discard(number)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert had[0] > 0


def test_a_slow_upload_does_not_let_two_in(use: Callable[[Store], Store], tmp_path: Path) -> None:
    """The first to begin is the last to be there: it sees who came between, and steps back."""
    waits = iter([1.5])
    use(Store(lambda: next(waits, 0.0)))
    refused: list[str] = []

    def slow() -> None:
        try:
            with lease.leased(node(tmp_path, "slow"), "busy"):
                refused.append("was let in")
        except UserError as error:
            refused.append(str(error))

    thread = threading.Thread(target=slow)
    thread.start()
    time.sleep(0.2)
    with lease.leased(node(tmp_path, "fast"), "busy"):
        thread.join()
    assert refused == ["busy"]


def test_who_was_cut_off_and_taken_for_dead_is_interrupted(
    use: Callable[[Store], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, told = use(Store(lambda: 0.0)), threading.Event()
    monkeypatch.setattr(lease.os, "kill", lambda pid, number: told.set() if number == signal.SIGINT else None)
    cut_off = node(tmp_path, "cut-off")
    with lease.leased(cut_off, "busy"):
        store.away.add(cut_off.parent)
        with lease.leased(node(tmp_path, "next"), "busy"):
            assert not told.is_set()
            store.away.clear()
            assert told.wait(5)
    assert store.objects == {}


def test_whoever_is_refused_leaves_nothing(use: Callable[[Store], Store], tmp_path: Path) -> None:
    store = use(Store(lambda: 0.0))
    with lease.leased(node(tmp_path, "a"), "busy"):
        with pytest.raises(UserError, match="busy"), lease.leased(node(tmp_path, "b"), "busy"):
            pass
        assert len(store.objects) == 1

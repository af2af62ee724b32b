"""Ray starts on a busy machine, in a folder with a long name, and otherwise says in one line why it does not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import psutil
import pytest

from pipelines.cluster import local_start, worker_start
from pipelines.errors import UserError

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """No process stands by to fork workers of a Ray that does not start."""
    started = mock.Mock()
    monkeypatch.setattr(local_start.template, "started", lambda _: started)
    return started


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Ray's init, which fails as often as a test lets it: `tries` has what it was called with."""
    monkeypatch.setattr(local_start, "PAUSE_S", 0.0)
    return []


def failing(monkeypatch: pytest.MonkeyPatch, tries: list[dict[str, Any]], times: int, error: Exception) -> None:
    def init(**arguments: Any) -> None:
        tries.append(arguments)
        if len(tries) <= times:
            raise error

    monkeypatch.setattr(local_start.ray, "init", init)


def test_a_start_that_takes_too_long_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tries: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, tries, 2, Exception(SLOW))
    local_start.start_here(num_cpus=3)
    assert [each["num_cpus"] for each in tries] == [3, 3, 3]


def test_a_start_that_never_succeeds_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tries: list[dict[str, Any]], workers: mock.Mock
) -> None:
    failing(monkeypatch, tries, 9, Exception(SLOW))
    with pytest.raises(UserError, match=r"tried 3 times \(The current node timed out.*is it busy") as caught:
        local_start.start_here()
    assert "\n" not in str(caught.value)
    assert len(tries) == 3
    workers.end.assert_called_once_with()


def test_a_full_disk_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tries: list[dict[str, Any]]) -> None:
    failing(monkeypatch, tries, 9, OSError(errno.ENOSPC, "No space left on device", "/tmp/ray/x"))
    with pytest.raises(UserError, match="/tmp/ray/x: no space is left on the disk"):
        local_start.start_here()
    assert len(tries) == 1


def test_what_a_failed_start_leaves_running_is_ended(
    monkeypatch: pytest.MonkeyPatch, tries: list[dict[str, Any]]
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    mine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def init(**_: Any) -> None:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        raise Exception(SLOW)

    monkeypatch.setattr(local_start.ray, "init", init)
    with pytest.raises(UserError):
        local_start.start_here()
    assert [each.wait(5) for each in started] == [-9, -9, -9]
    assert psutil.pid_exists(mine.pid)
    mine.kill()
    mine.wait()


def test_a_long_temporary_folder_is_left_for_a_short_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert local_start.temporary_folder() is None
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * 60)
    monkeypatch.setattr(local_start, "SHORT", tmp_path)
    assert local_start.temporary_folder() == str(tmp_path)
    monkeypatch.setattr(local_start, "SHORT", tmp_path / "file" / "x")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"set RAY_TMPDIR to a folder of at most 3[0-9] bytes"):
        local_start.temporary_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "y" * 60)
    with pytest.raises(UserError, match=r"/tmp/y+: too long a name"):
        local_start.temporary_folder()


def test_ray_waits_longer_for_its_node_than_it_would_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()

    def get_node(*arguments: int) -> str:
        asked.append(1)
        if len(asked) < 3:
            raise RuntimeError("no such node yet")
        return f"node {arguments}"

    monkeypatch.setattr(local_start.ray._private.services, "get_node", get_node)
    found = list[str]()
    monkeypatch.setattr(
        local_start.ray, "init", lambda **_: found.append(local_start.ray._private.services.get_node(1, 2))
    )
    local_start.start_here()
    assert found == ["node (1, 2)"]
    assert local_start.ray._private.services.get_node is get_node


class Node:
    """Ray's node, which notes what it has started."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self._ray_params = SimpleNamespace(setup_worker_path="/ray/setup_worker.py")

    def start_api_server(self, *, include_dashboard: bool) -> None:
        self.started.append("api server")

    def start_monitor(self) -> None:
        self.started.append("monitor")

    def start_raylet(self, memory: int) -> None:
        self.started.append(self._ray_params.setup_worker_path)


@pytest.mark.parametrize("dashboard", [False, True])
def test_a_ray_starts_nothing_that_nobody_looks_at(monkeypatch: pytest.MonkeyPatch, dashboard: bool) -> None:
    monkeypatch.setattr(local_start.ray._private.node, "Node", Node)
    monkeypatch.delenv(worker_start.ORIGINAL, raising=False)
    methods = dict(vars(Node))

    def init(**_: Any) -> None:
        node = Node()
        node.start_api_server(include_dashboard=dashboard)
        node.start_monitor()
        node.start_raylet(1)
        seen.extend(node.started)

    seen: list[str] = []
    monkeypatch.setattr(local_start.ray, "init", init)
    local_start.start_here(include_dashboard=dashboard)
    assert seen == [*(["api server", "monitor"] if dashboard else []), worker_start.__file__]
    assert os.environ[worker_start.ORIGINAL] == "/ray/setup_worker.py"
    assert dict(vars(Node)) == methods, "Ray is left as it was"


def test_a_ray_that_has_these_otherwise_starts_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_start.ray._private.node, "Node", type("Node", (), {}))
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(local_start.ray, "init", lambda **arguments: started.append(arguments))
    local_start.start_here(num_cpus=1)
    assert len(started) == 1

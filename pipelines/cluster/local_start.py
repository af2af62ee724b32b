"""Start Ray on this machine, also where it is busy or its temporary folder has a long name."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
import ray._private.node
import ray._private.services

from pipelines.cluster import template, worker_start
from pipelines.cluster.template import Template
from pipelines.errors import UserError, first_line, machine_error
from pipelines.progress import console

ATTEMPTS = 3
PAUSE_S = 5.0
WAIT_S = 150.0  # for a node to come up
LONGEST_SOCKET = 107  # bytes of a path of AF_UNIX on Linux
SESSION = len("/session_2026-11-27_13-25-13_123456_4194304/sockets/plasma_store.1")  # what Ray adds to its folder
SHORT = Path("/tmp/ray")


def start_here(preload: Sequence[str] = (), **arguments: Any) -> Template:
    """Start a Ray of this process alone; with time for a busy machine, on which Ray alone gives up after 30 s.

    Parameters
    ----------
    preload : modules that its workers have when they start.
    arguments : of ray.init.

    Returns
    -------
    What its workers are forked from: to be ended after it.

    Raises
    ------
    UserError
        If it does not start, in one line with the reason.
    """
    folder = temporary_folder()
    if folder is not None:
        arguments["_temp_dir"] = folder
    workers = template.started(preload)
    try:
        _start(arguments)
    except BaseException:
        workers.end()
        raise
    return workers


def _start(arguments: dict[str, Any]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _no_leftovers(), _patient(), _lean(bool(arguments.get("include_dashboard"))):
                ray.init(address="local", **arguments)
            return
        except Exception as error:
            with suppress(Exception):
                ray.shutdown()
            if (refusal := machine_error(error)) is not None:
                raise refusal from error
            if isinstance(error, ValueError | TypeError):
                raise  # it was asked for what it does not know
            reason = first_line(error)[:200]
            if attempt == ATTEMPTS:
                raise UserError(f"Ray does not start on this machine, tried {ATTEMPTS} times ({reason}); is it busy "
                                "(uptime), or out of memory (free) or disk (df)? Its logs: "
                                f"{arguments.get('_temp_dir') or Path(_system_folder(), 'ray')}/session_latest/logs"
                                ) from error  # fmt: skip
            console.print(f"Ray did not start ({reason}); trying again, {attempt + 1} of {ATTEMPTS}")
            time.sleep(PAUSE_S * attempt)


def temporary_folder() -> str | None:
    """Return a folder for Ray if its own choice has too long a name for sockets; None: its choice is fine.

    Raises
    ------
    UserError
        If there is no shorter one.
    """
    own = Path(_system_folder(), "ray")
    if len(os.fsencode(own)) + SESSION <= LONGEST_SOCKET:
        return None
    most = LONGEST_SOCKET - SESSION - len("/ray")
    if "RAY_TMPDIR" not in os.environ:
        with suppress(OSError):
            SHORT.mkdir(parents=True, exist_ok=True)
            if os.access(SHORT, os.W_OK | os.X_OK):
                console.print(f"{own.parent}: too long a name for Ray's sockets; Ray takes {SHORT} (set RAY_TMPDIR)")
                return str(SHORT)
    raise UserError(
        f"{own.parent}: too long a name for Ray's sockets; set RAY_TMPDIR to a folder of at most {most} bytes"
    )


def _system_folder() -> str:
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


@contextmanager
def _patient() -> Iterator[None]:
    """Give Ray's node WAIT_S to come up: Ray itself gives it 30 s, a number in the middle of its code.

    It asks `ray._private.services.get_node` until that answers or 30 s have passed; here the asking takes longer. If a
    version of Ray asks otherwise, it waits as long as it does.
    """
    asked = getattr(ray._private.services, "get_node", None)
    if asked is None:
        yield
        return
    until = time.monotonic() + WAIT_S

    def get_node(*arguments: Any) -> Any:
        while True:
            try:
                return asked(*arguments)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    ray._private.services.get_node = get_node
    try:
        yield
    finally:
        ray._private.services.get_node = asked


@contextmanager
def _lean(dashboard: bool) -> Iterator[None]:
    """Leave out what a Ray of one command on one machine does not need.

    Without a dashboard: the server behind it, which Ray starts all the same and waits for before it goes on; the
    autoscaler's monitor; the monitor that tails logs for drivers, of which ours shows none. Half of Ray's start. And
    each worker is started by a light script (pipelines.cluster.worker_start). A version of Ray that has these
    otherwise starts them.
    """
    node = ray._private.node.Node
    left_out = () if dashboard else ("start_api_server", "start_monitor", "start_log_monitor")
    before = {name: getattr(node, name) for name in (*left_out, "start_raylet") if hasattr(node, name)}
    for name in before:
        setattr(node, name, lambda *_, **__: None)

    def start_raylet(self: Any, *arguments: Any, **named: Any) -> None:
        parameters = self._ray_params
        if isinstance(getattr(parameters, "setup_worker_path", None), str):
            os.environ[worker_start.ORIGINAL] = parameters.setup_worker_path
            parameters.setup_worker_path = str(Path(worker_start.__file__))
        # a free one: Ray's own choice is the same for every Ray of a machine, and the second one tries it for 3.4 s
        parameters.dashboard_agent_listen_port = 0
        before["start_raylet"](self, *arguments, **named)

    if "start_raylet" in before:
        setattr(node, "start_raylet", start_raylet)  # noqa: B010  # not assigned: it is a method
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(node, name, method)


@contextmanager
def _no_leftovers() -> Iterator[None]:
    """End what a start that failed has left running: those of this process's children that were not there before."""
    me = psutil.Process()
    before = set(me.children(recursive=True))
    try:
        yield
    except BaseException:
        for each in set(me.children(recursive=True)) - before:
            with suppress(psutil.Error):
                each.kill()
        raise

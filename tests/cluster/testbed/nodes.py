"""Start a node, run a command on it, lose it. A node is found by the arguments of its first process: no PID is kept."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from tests.cluster.testbed import network
from tests.cluster.testbed.state import BedError, Node

REPOSITORY = Path(__file__).parents[3]
INIT = str(Path(__file__).with_name("node_init.py"))
SPEC = "spec.json"
SHM_BYTES = 2**30  # of /dev/shm: Ray's object store lies there
LOG_LINES = 15  # that an error shows
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
BASE = {
    "LANG": "C.UTF-8",
    "PATH": f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONUNBUFFERED": "1",
}
_children: list[subprocess.Popen[bytes]] = []  # collected when they end, if this process lives that long


def start(bed: Path, node: Node, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start a node whose life is that of `command`; nothing of this process's environment is passed on."""
    folder = Path(node.folder)
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{node.ip} {node.name}\n")
    spec = {
        "name": node.name,
        "isolated": node.isolated,
        "folder": str(folder),
        "tmp": str(node.tmp_here),
        "below_tmp": _below_tmp(),
        "shm_bytes": SHM_BYTES,
        "command": list(command),
        "cwd": node.tmp,
    }
    (folder / SPEC).write_text(json.dumps(spec))
    enter: list[str] = []
    if node.isolated:
        network.add_namespace(bed, node.name, node.ip)
        enter = ["nsenter", f"--net=/run/netns/{network.namespace(bed, node.name)}"]
        enter += ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with node.log.open("wb") as log:
        process = subprocess.Popen(
            [*enter, sys.executable, INIT, str(folder / SPEC)],
            env=base_environment(node) | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,  # Ctrl-C in the shell that made the bed is not for its nodes
        )
    _children.append(process)
    # nsenter and unshare come first: until they are through, the node would be taken for one that has ended
    wait_for(
        lambda: init_process(folder) is not None or process.poll() is not None,
        f"{node.name}: does not start",
        START_TIMEOUT_S,
    )


def base_environment(node: Node) -> dict[str, str]:
    """What every process of the node has."""
    return BASE | {"HOME": node.home, "TMPDIR": node.tmp}


def _below_tmp() -> list[str]:
    """What a node must see of this machine's /tmp: the repository and Python, if they lie there; outer first."""
    wanted = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix).resolve()}
    return sorted(str(path) for path in wanted if path.is_relative_to("/tmp"))


def init_process(folder: str | Path) -> psutil.Process | None:
    """The first process of the node with this folder; None: it is not up."""
    arguments = [INIT, str(Path(folder) / SPEC)]
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if command[1:] == arguments and process.info["status"] != psutil.STATUS_ZOMBIE:
            return process
    return None


def run(
    node: Node, command: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command on the node, in its temporary folder, and wait for it; exit code 124: out of time.

    Raises
    ------
    BedError
        If the node is not up.
    """
    if (init := init_process(node.folder)) is None:
        raise BedError(f"{node.name}: not up")
    enter = ["nsenter", "--all", "--target", str(init.pid)] if node.isolated else []
    bounded = ["timeout", "--kill-after=5", str(timeout_s), "env", f"--chdir={node.tmp}", *command]
    env = base_environment(node) | dict(environment)
    return subprocess.run([*enter, *bounded], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def lose(bed: Path, node: Node) -> None:
    """SIGKILL everything on the node; its files stay on this machine until the bed goes down."""
    if node.isolated:
        network.remove_namespace(network.namespace(bed, node.name))
    elif init := init_process(node.folder):
        init.terminate()  # it kills all that descends from it, and then itself
        wait_for(lambda: init_process(node.folder) is None, f"{node.name}: does not end", STOP_TIMEOUT_S)
    for process in _children[:]:
        if process.poll() is not None:
            _children.remove(process)


def wait_for(condition: Callable[[], bool], complaint: str, timeout_s: float, node: Node | None = None) -> None:
    """Poll until the condition holds.

    Raises
    ------
    BedError
        With the complaint after `timeout_s`, and with the end of the node's log if that node ends.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        over = time.monotonic() > deadline
        if node is not None and (over or init_process(node.folder) is None):
            log = node.log.read_text(errors="replace").splitlines() if node.log.exists() else []
            raise BedError("\n".join([f"{complaint}; the end of its log:", *log[-LOG_LINES:]]))
        if over:
            raise BedError(complaint)
        time.sleep(0.1)

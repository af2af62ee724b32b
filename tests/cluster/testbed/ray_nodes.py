"""The bed's hosts that are Ray's: a head without CPUs and workers, as ``ray start`` makes them on any machine."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from tests.cluster.testbed import nodes
from tests.cluster.testbed.services import BUCKET, http_get, http_status, storage_environment
from tests.cluster.testbed.state import BedError, Node, State

PORTS = {"ray": 6379, "dashboard": 8265}
START_TIMEOUT_S = 120
COMMAND_TIMEOUT_S = 60
OBJECT_STORE_BYTES = 512 * 2**20  # a node's, below its /dev/shm
RAY = f"{sys.prefix}/bin/ray"


def head_command(state: State) -> list[str]:
    """Of the head's daemon; everybody on the bridge reaches its job server."""
    ip = state.nodes["head"].ip
    place = [
        "--port",
        str(state.ports["ray"]),
        "--dashboard-host",
        ip,
        "--dashboard-port",
        str(state.ports["dashboard"]),
    ]
    return [*_start(state.nodes["head"], 0), "--head", *place]


def worker_command(state: State, node: Node, cpus: int) -> list[str]:
    """Of a worker's daemon."""
    return [*_start(node, cpus), "--address", state.ray_address]


def _start(node: Node, cpus: int) -> list[str]:
    start = [RAY, "start", "--block", "--disable-usage-stats", "--node-name", node.name, "--node-ip-address", node.ip]
    own = [] if node.isolated else ["--temp-dir", f"{node.folder}/ray"]  # isolated, /tmp/ray is its own
    return [*start, "--num-cpus", str(cpus), "--object-store-memory", str(OBJECT_STORE_BYTES), *own]


def environment(state: State, node: Node) -> dict[str, str]:
    """Of the daemon of a head or worker, and so of every task, actor and job on it."""
    return {
        **storage_environment(state),
        "MIND_HOME": home(),
        "MIND_CACHE": f"{node.tmp}/mind-cache",
        "MLFLOW_TRACKING_URI": state.url("mlflow"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": f"{node.home}/.ray/auth_token",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a checkpoint counts only once the controller has polled it
        "OMP_NUM_THREADS": "1",  # all nodes share this machine's cores
        "GOMP_SPINCOUNT": "2000",  # as mind sets it on its own clusters
    }


def home() -> str:
    """The bed's MIND_HOME."""
    return f"s3://{BUCKET}/home"


def await_head(state: State) -> None:
    """Return when the job server answers; BedError with the end of its log if it does not."""
    url, token = state.url("dashboard") + "/api/version", state.secrets["token"]
    nodes.wait_for(
        lambda: http_status(url, token) == 200, "the head does not answer", START_TIMEOUT_S, state.nodes["head"]
    )


def await_worker(state: State, node: Node) -> None:
    """Return when the cluster counts it in; BedError with the end of its log if it does not."""
    nodes.wait_for(lambda: node.name in alive(state), f"{node.name} does not join", START_TIMEOUT_S, node)


def alive(state: State) -> dict[str, str]:
    """Ray's ID of every node that the cluster counts in, by the bed's name for it; empty: the head does not answer."""
    return {each["node_name"]: each["node_id"] for each in ray_nodes(state) if each["state"] == "ALIVE"}


def ray_nodes(state: State) -> list[dict[str, Any]]:
    """What the cluster says of its nodes, dead ones included; empty: the head does not answer."""
    status, body = http_get(state.url("dashboard") + "/api/v0/nodes", state.secrets["token"])
    if status != 200:
        return []
    return list(json.loads(body)["data"]["result"]["result"])


def drain(state: State, node: Node, deadline_s: int) -> None:
    """Tell the cluster that the node goes, as a cloud's notice of a preemption does; return when it is idle or late.

    Raises
    ------
    BedError
        If the cluster refuses.
    """
    command = [RAY, "drain-node", "--address", state.ray_address, "--node-id", alive(state).get(node.name, "")]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the bed takes it away"]
    command += ["--deadline-remaining-seconds", str(deadline_s)]
    head = state.nodes["head"]
    done = nodes.run(head, command, environment(state, head), COMMAND_TIMEOUT_S)
    if done.returncode:
        raise BedError(f"{node.name}: cannot be drained: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    with contextlib.suppress(BedError):  # still at work: its time is over
        nodes.wait_for(lambda: nodes.init_process(node.folder) is None, "", deadline_s)

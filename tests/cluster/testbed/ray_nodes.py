"""The bed's hosts that are Ray's: a head without CPUs and workers, as ``ray start`` makes them on any machine."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from tests.cluster.testbed import nodes
from tests.cluster.testbed.services import BUCKET, http_get, http_status, storage_environment
from tests.cluster.testbed.state import BedError, Node, State

PORTS = {"ray": 6379, "dashboard": 8265, "agent": 52365}  # agent: of the head, through which the job server starts jobs
START_TIMEOUT_S = 120
COMMAND_TIMEOUT_S = 60
OBJECT_STORE_BYTES = 512 * 2**20  # a node's, below its /dev/shm
RAY = f"{sys.prefix}/bin/ray"


def head_command(state: State) -> list[str]:
    """Return the command of the head's daemon; everybody on the bridge reaches its job server."""
    head, ports = state.nodes["head"], state.ports
    dashboard = ["--dashboard-host", head.ip, "--dashboard-port", str(ports["dashboard"])]
    return [*_start(head, 0, ports["agent"]), "--head", "--port", str(ports["ray"]), *dashboard]


def worker_command(state: State, node: Node, cpus: int) -> list[str]:
    """Return the command of a worker's daemon."""
    agent = PORTS["agent"] if node.isolated else 0  # 0: any
    return [*_start(node, cpus, agent), "--address", state.ray_address]


def _start(node: Node, cpus: int, agent: int) -> list[str]:
    start = [RAY, "start", "--block", "--disable-usage-stats", "--node-name", node.name, "--node-ip-address", node.ip]
    start += ["--num-cpus", str(cpus), "--object-store-memory", str(OBJECT_STORE_BYTES)]
    start += ["--dashboard-agent-listen-port", str(agent)]
    return start if node.isolated else [*start, "--temp-dir", f"{node.folder}/ray"]  # isolated, /tmp/ray is its own


def environment(state: State, node: Node) -> dict[str, str]:
    """Return the environment of a head's or worker's daemon, and so of every task, actor and job on it."""
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
    """Return when the job server takes jobs; BedError with the end of its log if it does not."""
    head, token = state.nodes["head"], state.secrets["token"]
    agent = f"http://{head.ip}:{state.ports['agent']}/api/local_raylet_healthz"
    addresses = (state.url("dashboard") + "/api/version", agent)
    nodes.wait_for(
        lambda: all(http_status(address, token) == 200 for address in addresses),
        "the head does not answer",
        START_TIMEOUT_S,
        head,
    )


def await_worker(state: State, node: Node) -> None:
    """Return when the cluster counts it in; BedError with the end of its log if it does not."""
    nodes.wait_for(lambda: node.name in alive(state), f"{node.name} does not join", START_TIMEOUT_S, node)


def alive(state: State) -> dict[str, str]:
    """Ray's ID of every node that the cluster counts in, by the bed's name for it; empty: the head does not answer."""
    return {each["node_name"]: each["node_id"] for each in listed(state, "nodes") if each["state"] == "ALIVE"}


def listed(state: State, kind: str) -> list[dict[str, Any]]:
    """What the cluster says of its nodes or actors, dead ones included; empty: the head does not answer."""
    status, body = http_get(f"{state.url('dashboard')}/api/v0/{kind}?limit=1000", state.secrets["token"])
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

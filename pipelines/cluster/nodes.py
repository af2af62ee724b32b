"""The nodes of the cluster that this process has joined: run something on each, see that all reach the same files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.config.home_location import origin, shown
from pipelines.errors import UserError
from pipelines.storage.home_files import names

WAYS_OUT = (
    "on a cluster of several nodes it must be a path on storage that all of them mount alike (NFS), or "
    "s3://bucket/prefix or gs://bucket/prefix"
)
DRIVER_CPUS = "MIND_DRIVER_CPUS"  # environment: what the driver of a submitted job holds of its node


def driver_note() -> str:
    """Say, for a message that the cluster has too little, what this job's own driver holds, if anything."""
    held = os.environ.get(DRIVER_CPUS)
    return f" beside the job's driver ({held} CPUs; on the head with --entrypoint-num-cpus 0)" if held else ""


def free_nodes() -> list[dict[str, float]]:
    """List the resources of each node, without what this job's own driver holds: no task or worker can have that."""
    here = ray.get_runtime_context().get_node_id()
    held = float(os.environ.get(DRIVER_CPUS, 0))
    return [
        node["Resources"] | {"CPU": node["Resources"].get("CPU", 0.0) - held * (node["NodeID"] == here)}
        for node in ray.nodes()
        if node["Alive"]
    ]


def free_resources() -> dict[str, float]:
    """Add up the CPUs and GPUs of `free_nodes`."""
    nodes = free_nodes()
    return {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}


def on_every_node(task: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Run ``task(*arguments)`` on every node, here without a cluster; results by address, without nodes that die.

    Raises
    ------
    Exception
        What a task raised.
    """
    if not ray.is_initialized():
        return {"": task(*arguments)}
    remote = ray.remote(num_cpus=0)(task)
    references = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            references[node["NodeManagerAddress"], node["NodeID"]] = remote.options(scheduling_strategy=there).remote(
                *arguments
            )
    found = {}
    for (address, _), reference in references.items():
        try:
            found[address] = ray.get(reference)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
            continue
    return found


def require_reach(home: Path, inputs: Sequence[str] = ()) -> None:
    """See that every node of a cluster of several reads the home folder, and the inputs.

    Parameters
    ----------
    home : as `Config.home_path`.
    inputs : paths, globs or URIs of what tasks read; what is no local path is left to them.

    Raises
    ------
    UserError
        Naming the first that some node does not reach, and the node.
    """
    if sum(node["Alive"] for node in ray.nodes()) < 2:
        return
    if origin(home) is None:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".probe-{uuid.uuid4().hex[:12]}"
        probe.touch()
        try:
            blind = [node for node, sees in on_every_node(_sees, str(probe)).items() if not sees]
        finally:
            probe.unlink(missing_ok=True)
        if blind:
            raise UserError(f"home={home}: node {blind[0]} does not have this folder; {WAYS_OUT} (--set home=..., "
                            "--home or MIND_HOME)")  # fmt: skip
    else:
        for node, refusal in on_every_node(_refusal, home).items():
            if refusal:
                raise UserError(f"node {node} does not reach home={shown(home)}: {refusal}")
    for path in inputs:
        if "://" not in path:
            place = str(Path(path).expanduser().absolute())
            blind = [node for node, sees in on_every_node(_sees, place).items() if not sees]
            if blind:
                raise UserError(f"{path}: node {blind[0]} does not have it; {WAYS_OUT}")


def _sees(path: str) -> bool:
    """Task: whether a path, or what is before its first wildcard, is there."""
    parts = Path(path).parts
    plain = next((number for number, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    return Path(*parts[:plain]).exists()


def _refusal(home: Path) -> str | None:
    """Task: why a node cannot list a mirrored home; None if it can."""
    try:
        names(home)
    except UserError as error:
        return str(error)
    return None

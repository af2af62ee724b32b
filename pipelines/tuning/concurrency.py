"""How many trials fit a cluster at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.errors import UserError
from pipelines.tuning.config import Resources

SLACK = 1e-6  # of sums of fractions


def concurrent_trials(resources: Resources, nodes: Sequence[Mapping[str, float]], source: str) -> int:
    """Say how many trials run at a time: as many as asked for, or as fit.

    Parameters
    ----------
    nodes : CPU and GPU of each node.

    Raises
    ------
    UserError
        If not even one trial fits, or fewer than asked for.
    """
    places = sum(_workers(resources, node) for node in nodes)
    if resources.workers > 1 and 0 < resources.gpus < 1:
        raise UserError(f"{source}: resources.gpus={resources.gpus:g}: must be whole with resources.workers > 1: NCCL "
                        "takes a GPU once")  # fmt: skip
    room = places // resources.workers
    has = " + ".join(_amount(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
    need = f"{resources.workers} x {_amount(resources.cpus, resources.gpus)}"
    if room == 0:
        raise UserError(f"{source}: resources: a trial needs {need}, the cluster has {has}; ask for less, e.g. "
                        "--set resources.workers=1, or join a larger cluster")  # fmt: skip
    if resources.concurrent is not None and resources.concurrent > room:
        raise UserError(f"{source}: resources.concurrent={resources.concurrent}: there is room for {room} "
                        f"(a trial needs {need}, the cluster has {has})")  # fmt: skip
    return resources.concurrent or room


def _workers(resources: Resources, node: Mapping[str, float]) -> int:
    """Workers that fit a node."""
    fit = (node.get("CPU", 0.0) + SLACK) // resources.cpus
    if resources.gpus:
        fit = min(fit, (node.get("GPU", 0.0) + SLACK) // resources.gpus)
    return int(fit)


def _amount(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")

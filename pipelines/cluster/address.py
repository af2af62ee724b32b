"""Where Ray is, or shall be: what a configuration and the environment say. Imports no Ray."""

from __future__ import annotations

import os

from pipelines.config.schema import RayConfig


def cluster_address(config: RayConfig) -> str | None:
    """Return the address of the cluster to join; None: a local one is started."""
    return config.address or os.environ.get("RAY_ADDRESS")


def local_cpus(config: RayConfig, workers: int = 1) -> int:
    """Count the logical CPUs of a local cluster for so many training workers."""
    return config.num_cpus or max(cores(), workers + 1)


def cores() -> int:
    """Count the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

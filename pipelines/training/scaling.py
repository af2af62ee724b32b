"""What the workers of a training ask a cluster for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ray.train import ScalingConfig

from pipelines.cluster.address import cluster_address, cores
from pipelines.cluster.nodes import driver_note
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.words import counted

ELASTIC_WAIT_S = "20"  # for as many workers as there were before going on with fewer; Ray's own 60 s: for all there is


@dataclass(frozen=True)
class Scaling:
    """cpus : of the cluster now; 0: whatever is asked for.  threads : of a worker.  use_gpu : one per worker."""

    cpus: int
    threads: int
    use_gpu: bool
    joined: bool

    def to_ray(self, config: Config, given: str) -> ScalingConfig:
        """Say the same in Ray Train's own terms.

        given : how the workers hold the data, memory or stream: Ray Data needs a CPU to read with, or waits for ever.

        Raises
        ------
        UserError
            If there is no CPU left to read with.
        """
        most, least = config.train.workers, config.train.min_workers
        reading = 1 if given == "stream" else 0
        if self.joined:
            cpus = float(self.threads)
            if self.cpus and least is None and most * self.threads + reading > self.cpus:
                raise UserError(f"train.workers={most}: {self.threads} threads each and a CPU to read with are "
                                f"{most * self.threads + reading}, the cluster has {self.cpus}"
                                f"{driver_note()}")  # fmt: skip
        else:
            cpus = min(1.0, (self.cpus - reading) / most)
        if least is not None:
            os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", ELASTIC_WAIT_S)
        return ScalingConfig(
            num_workers=most if least is None else (least, most),  # type: ignore[arg-type]  # typed as V1's
            use_gpu=self.use_gpu,
            resources_per_worker={"CPU": cpus} | ({"GPU": 1} if self.use_gpu else {}),
        )


def scaling_of(config: Config, resources: Mapping[str, float]) -> Scaling:
    """Say what workers get on a cluster of so many ``CPU`` and ``GPU``.

    Raises
    ------
    UserError
        If it has too few for the workers, and no way to get more.
    """
    train, joined = config.train, cluster_address(config.ray) is not None
    threads = train.threads or (1 if joined else max(1, cores() // train.workers))
    if joined and config.ray.autoscaling:
        return Scaling(0, threads, bool(train.use_gpu), joined)
    workers = train.min_workers or train.workers
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    need = workers * threads if joined else workers
    grows = "" if not joined else "; if it gets nodes as they are asked for: --set ray.autoscaling=true"
    if need > cpus:
        each = f" of {threads} threads" if need > workers else ""
        raise UserError(f"train.workers={workers}{each}: the cluster has {counted(cpus, 'CPU')}{driver_note()}; "
                        f"use at most {counted(cpus * workers // need, 'worker')}{grows}")  # fmt: skip
    use_gpu = gpus >= workers if train.use_gpu is None else train.use_gpu
    if use_gpu and gpus < workers:
        needed = f"{counted(workers, 'worker needs', 'workers need')} as many GPUs"
        raise UserError(f"train.use_gpu=true: {needed}, the cluster has {gpus}{grows}")
    return Scaling(cpus, threads, use_gpu, joined)

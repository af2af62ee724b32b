"""A trial of several workers: Ray Tune's actor starts a run of Ray Train for it, which ends with the trial.

    Tune's actor             Exchange                  rank 0
    step(): next() ────────▶  waits   ◀─────────────── report(result)
            result ◀────────
    step(): next() ────────▶          ───────────────▶ True: go on
    cleanup(): stop() ─────▶          ───────────────▶ False: the run ends, and gives its resources back

The run dies with the actor, and the actor with Tune.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")  # how soon the end of a run is seen

import ray
import ray.exceptions
import ray.train
import ray.train.torch
import torch
from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer

from mind_core.distributed import sum_over_ranks
from pipelines.cluster.environment import WORKER_ENVIRONMENT
from pipelines.dataset.dataset import Dataset
from pipelines.storage.home_files import storage
from pipelines.training.ray_trainer import Trainer
from pipelines.tuning.config import Resources
from pipelines.tuning.trial.shared_data import shared_data
from pipelines.tuning.trial.training import Common, Result, failed, reason_of, results_of

LOST = "lost"  # key of a result: why the run could not go on


@dataclass(frozen=True)
class Group:
    """How a trial's workers are started.

    folder : for Ray Train's own files.
    local : on a Ray started for this campaign, whose processes have the environment of this one.
    """

    resources: Resources
    folder: Path
    local: bool


class Exchange:
    """The results of a trial on their way to Tune, and Tune's decisions on their way back; an asyncio actor.

    Workers that are started anew begin with what they had come to: a result that is there already does no harm.
    """

    def __init__(self) -> None:
        self._results: list[Result] = []
        self._asked = 0  # how many results Tune has asked for: those before the last of them are decided
        self._stopped = False
        self._changed = asyncio.Condition()

    async def next(self) -> Result:
        """Wait for the next result; asking for it says that the trial goes on."""
        async with self._changed:
            self._asked += 1
            self._changed.notify_all()
            await self._changed.wait_for(lambda: len(self._results) >= self._asked)
            return self._results[self._asked - 1]

    async def report(self, result: Result) -> bool:
        """Hand in a result, wait for the decision on it, and say whether to go on."""
        async with self._changed:
            self._results.append(result)
            number = len(self._results)
            self._changed.notify_all()
            if result["done"]:  # by itself: there is nothing to decide
                return False
            await self._changed.wait_for(lambda: self._stopped or self._asked > number)
            return not self._stopped

    async def stop(self) -> None:
        """Tell the workers, at their next report, that Tune wants no more."""
        async with self._changed:
            self._stopped = True
            self._changed.notify_all()


class WorkerGroupTrial(tune.Trainable):
    """One step is one validation, as its workers report it."""

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], common: Common, group: Group, data: list[ray.ObjectRef[Any]]
    ) -> None:
        """Start the run; data : what `share_data` returned, in a list so that Ray leaves it a reference."""
        self.exchange: Any = ray.remote(Exchange).options(num_cpus=0, max_concurrency=100).remote()
        settings = {"trial": config, "common": common, "data": data, "exchange": self.exchange}
        trainer = _trainer(settings, group, f"trial-{config['number']:05d}-{secrets.token_hex(4)}")
        self.run = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
        self.run.start()

    def step(self) -> Result:
        result: Result = ray.get(self.exchange.next.remote())
        if result["done"]:
            self.run.join()  # its workers leave their place to the next trial's
        if LOST in result:
            raise RuntimeError(result[LOST])
        return result

    def cleanup(self) -> None:
        with suppress(ray.exceptions.RayActorError):  # then the run is torn down with this process
            ray.get(self.exchange.stop.remote())
            self.run.join()

    def _fit(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except WorkerGroupError as error:  # Ray Train has tried it as often as it may be
            self.exchange.report.remote(failed(next(iter(error.worker_failures.values()), error)))
        except BaseException as error:  # the run itself is lost: Tune starts the trial anew
            self.exchange.report.remote({LOST: reason_of(error), "done": True})


def _trainer(settings: dict[str, Any], group: Group, name: str) -> TorchTrainer:
    resources = group.resources
    return Trainer(
        train_worker,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker={"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {}),
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # typed as the class of Train V1, but V2's at run time
            name=name,
            **storage(group.folder),
            failure_config=FailureConfig(max_failures=resources.max_failures),
            worker_runtime_env={} if group.local else {"env_vars": WORKER_ENVIRONMENT},
        ),
    )


def train_worker(settings: dict[str, Any]) -> None:
    """Train on a worker, Ray Train's entry point: rank 0 reports the trial's results."""
    common: Common = settings["common"]
    torch.set_num_threads(common.threads)
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    rank, ranks = context.get_world_rank(), context.get_world_size()
    dataset = Dataset.open(common.dataset)
    data = shared_data(ray.get(settings["data"][0])).to(device)
    for result in results_of(settings["trial"], common.base, dataset, data, device, rank, ranks):
        go_on = rank > 0 or ray.get(settings["exchange"].report.remote(result))
        if sum_over_ranks(torch.tensor(float(go_on), device=device)) < ranks:
            return

"""The slots of a campaign: as many runs of Ray Train side by side as trials train at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster.session import WORKER_ENVIRONMENT
from pipelines.storage.home_files import storage as storage_of
from pipelines.tuning.config import Resources
from pipelines.tuning.dispatcher import Dispatcher
from pipelines.tuning.worker import reason_of, serve_trials

CONTROLLERS = 3  # that a slot may have, one after the other
START_FAILURES = 3  # of a slot's workers, one after the other, without a trial: e.g. a node has no dataset


class CrashCallback(UserCallback):
    """Tells the dispatcher at once that the workers of a slot are gone: another slot may be free."""

    def __init__(self, slot: int, dispatcher: Any):
        self.slot, self.dispatcher = slot, dispatcher

    def after_exception(
        self, run_context: Any, worker_exceptions: dict[int, Exception]
    ) -> None:  # Ray passes these by keyword
        reason = reason_of(next(iter(worker_exceptions.values()))) if worker_exceptions else "unknown"
        if ray.get(self.dispatcher.crashed.remote(self.slot, reason)) > START_FAILURES:
            raise RuntimeError(reason)  # an exception here ends the run


@contextmanager
def slots(
    number: int,
    resources: Resources,
    *,
    data: ray.ObjectRef[Any],
    dataset: Path,
    threads: int,
    storage: Path,
    local: bool,
) -> Iterator[Any]:
    """Start `number` slots and yield the handle of their dispatcher; at the end all their processes are gone.

    Parameters
    ----------
    data : what `share_data` stored.
    storage : folder for Ray Train's own files.
    local : on a Ray started for this campaign, whose processes have the environment of this one.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 1000, "scheduling_strategy": here}  # any other node may be lost
    dispatcher: Any = ray.remote(Dispatcher).options(**options).remote(number, resources.max_failures)
    threads_of_slots, place = [], storage_of(storage)
    for slot in range(number):

        def make(slot: int = slot) -> TorchTrainer:
            return TorchTrainer(
                serve_trials,
                train_loop_config={
                    "slot": slot,
                    "dispatcher": dispatcher,
                    "data": [data],
                    "dataset": str(dataset),
                    "threads": threads,
                },
                torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=resources.workers,
                    use_gpu=resources.gpus > 0,
                    resources_per_worker={"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {}),
                ),
                run_config=RunConfig(  # type: ignore[call-arg]  # typed as the class of Train V1, but V2's at run time
                    name=f"slot-{slot}",
                    **place,
                    callbacks=[CrashCallback(slot, dispatcher)],  # type: ignore[list-item]
                    failure_config=FailureConfig(max_failures=-1),  # CrashCallback counts
                    worker_runtime_env={} if local else {"env_vars": WORKER_ENVIRONMENT},
                ),
            )

        thread = threading.Thread(target=_serve, args=(make, slot, dispatcher), name=f"slot-{slot}", daemon=True)
        thread.start()
        threads_of_slots.append(thread)
    try:
        yield dispatcher
    finally:
        started = set(range(number))
        with suppress(ray.exceptions.RayActorError):  # dead: its workers have gone home
            ray.get(dispatcher.close.remote())
            started = ray.get(dispatcher.started.remote())
        for slot, thread in enumerate(threads_of_slots):
            if slot in started:  # the others wait for room on the cluster, perhaps for long
                thread.join()
        ray.kill(dispatcher)


def _serve(make: Callable[[], TorchTrainer], slot: int, dispatcher: Any) -> None:
    """Run a slot until its workers go home; a controller of Ray Train that dies is replaced."""
    reason = ""
    for _ in range(CONTROLLERS):
        try:
            make().fit()
        except Exception as error:
            reason = reason_of(error)
            dispatcher.crashed.remote(slot, reason)
        else:
            reason = "its workers went home"
            break
    dispatcher.lost.remote(reason)

"""`mind plan`: what a log of a size asks of a cluster, from the formulas of this package. Nothing is run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.plan import memory, preprocessing, ranking, training
from pipelines.plan.machine import Machine
from pipelines.plan.memory import Parts
from pipelines.plan.workload import Workload

PREPROCESS, EPOCH, TRAIN, EVALUATE, EXPORT = "preprocess", "one epoch", "train", "evaluate", "export"
WORKER, TRAIN_DRIVER, PREPROCESS_DRIVER = "training worker", "driver of train", "driver of preprocess"
TASK, ACTOR = "preprocess task", "actor of evaluate and export"
EVALUATE_DRIVER, EXPORT_DRIVER = "driver of evaluate", "driver of export"
DRIVERS = (TRAIN_DRIVER, PREPROCESS_DRIVER, EVALUATE_DRIVER, EXPORT_DRIVER)


@dataclass(frozen=True)
class Stage:
    """seconds : by what they go to; compute, network and disk of an epoch do not overlap."""

    name: str
    seconds: Parts

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Process:
    """A kind of process.  a_node : how many share a node.  parts : bytes of one.  shared : what all there hold once."""

    name: str
    a_node: int
    parts: Parts
    shared: float = 0.0

    @property
    def bytes(self) -> float:
        return sum(self.parts.values())

    @property
    def node_bytes(self) -> float:
        """Bytes of all such processes of a node."""
        return self.a_node * self.bytes + self.shared


@dataclass(frozen=True)
class Plan:
    """threads : of a worker.  nodes : of the training; preprocessing, evaluation and export use the same."""

    workload: Workload
    machine: Machine
    threads: int
    workers_a_node: int
    nodes: int
    stages: list[Stage]
    processes: list[Process]

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def process(self, name: str) -> Process:
        return next(process for process in self.processes if process.name == name)


def make_plan(workload: Workload, machine: Machine, nodes: int | None = None) -> Plan:
    """Plan everything that is printed.

    Parameters
    ----------
    nodes : of the cluster; None: the fewest that have a core for each thread and memory for each worker.
    """
    worker = memory.training_worker(workload, machine)
    threads, a_node = _placed(workload, machine, sum(worker.values()), nodes)
    nodes = nodes or math.ceil(workload.workers / a_node)
    cores = machine.cores * nodes
    epoch = _epoch(workload, machine, threads, a_node)
    actors = math.ceil(ranking.ranking_actors(workload, cores) / nodes)
    return Plan(
        workload,
        machine,
        threads,
        a_node,
        nodes,
        [
            _preprocess(workload, machine, nodes),
            epoch,
            _train(workload, machine, threads, epoch),
            _ranking(workload, machine, EVALUATE, ranking.evaluation_seconds(workload, machine, cores)),
            _ranking(workload, machine, EXPORT, ranking.export_seconds(workload, machine, cores)),
        ],
        [
            Process(WORKER, a_node, worker),
            Process(TRAIN_DRIVER, 1, memory.train_driver(workload, machine)),
            Process(PREPROCESS_DRIVER, 1, memory.preprocess_driver(workload, machine)),
            Process(
                TASK,
                max(1, int(machine.cores)),
                memory.preprocess_task(workload, machine),
                memory.lookup_bytes(workload),
            ),
            Process(ACTOR, actors, memory.evaluation_actor(workload, machine)),
            Process(EVALUATE_DRIVER, 1, memory.evaluation_driver(workload, machine)),
            Process(EXPORT_DRIVER, 1, memory.export_driver(workload, machine)),
        ],
    )


def _placed(workload: Workload, machine: Machine, bytes_each: float, nodes: int | None) -> tuple[int, int]:
    """Threads of a worker, and workers of a node.

    Where one node has room for all, they share its cores; on a cluster a worker has one thread, if not told otherwise.
    Source: pipelines.training.scaling.scaling_of.
    """

    def a_node(threads: int) -> int:
        return max(1, min(int(machine.cores // threads), int(machine.memory // bytes_each), workload.workers))

    configured = workload.config.train.threads
    shared = configured or max(1, int(machine.cores // workload.workers))
    if nodes == 1 or (nodes is None and a_node(shared) == workload.workers):
        return shared, workload.workers
    threads = configured or 1
    return threads, a_node(threads) if nodes is None else math.ceil(workload.workers / nodes)


def _preprocess(workload: Workload, machine: Machine, nodes: int) -> Stage:
    return Stage(
        PREPROCESS,
        {
            "start": machine.start_preprocess,
            "compute": preprocessing.pass_seconds(workload, machine, machine.cores * nodes),
            "disk": preprocessing.disk_seconds(workload, machine, nodes),
            "driver": preprocessing.driver_seconds(workload, machine),
        },
    )


def _epoch(workload: Workload, machine: Machine, threads: int, a_node: int) -> Stage:
    return Stage(
        EPOCH,
        {
            "compute": workload.steps * training.compute_seconds(workload, machine, threads),
            "network": workload.steps * training.network_seconds(workload, machine, a_node),
            "reports": training.report_seconds(workload, machine),
            "validation": training.validation_seconds(workload, machine, threads),
            "disk": training.checkpoint_seconds(workload, machine),
        },
    )


def _train(workload: Workload, machine: Machine, threads: int, epoch: Stage) -> Stage:
    """All epochs, what the table begins with, and the best model written twice: the artifact, and MLflow's copy."""
    epochs = workload.config.train.epochs_in_all
    published = 2 * memory.model_bytes(workload) / machine.disk
    each = {name: epochs * seconds for name, seconds in epoch.seconds.items()}
    begun = 2 if workload.config.train.refit else 1
    each["compute"] += begun * training.factor_seconds(workload, machine, threads)
    return Stage(TRAIN, {"start": machine.start_train, **each, "driver": published})


def _ranking(workload: Workload, machine: Machine, name: str, seconds: float) -> Stage:
    """Plan a stage whose actors load the model and rank."""
    loaded = memory.model_bytes(workload) / machine.disk
    return Stage(name, {"start": machine.start_evaluate, "compute": seconds, "disk": loaded})

"""`mind plan`: what a log of a size asks of a cluster, from the formulas of this package. Nothing is run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.plan import memory, preprocessing, ranking, training
from pipelines.plan.job import Job
from pipelines.plan.machine import Machine
from pipelines.plan.memory import Parts

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
        """Of all such processes of a node."""
        return self.a_node * self.bytes + self.shared


@dataclass(frozen=True)
class Plan:
    """threads : of a worker.  nodes : of the training; preprocessing, evaluation and export use the same."""

    job: Job
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


def make_plan(job: Job, machine: Machine, nodes: int | None = None) -> Plan:
    """Everything that is printed.

    Parameters
    ----------
    nodes : of the cluster; None: the fewest that have a core for each thread and memory for each worker.
    """
    worker = memory.training_worker(job, machine)
    threads, a_node = _placed(job, machine, sum(worker.values()), nodes)
    nodes = nodes or math.ceil(job.workers / a_node)
    cores = machine.cores * nodes
    epoch = _epoch(job, machine, threads, a_node)
    actors = math.ceil(ranking.ranking_actors(job, cores) / nodes)
    return Plan(
        job,
        machine,
        threads,
        a_node,
        nodes,
        [
            _preprocess(job, machine, nodes),
            epoch,
            _train(job, machine, epoch),
            _ranking(job, machine, EVALUATE, ranking.evaluation_seconds(job, machine, cores)),
            _ranking(job, machine, EXPORT, ranking.export_seconds(job, machine, cores)),
        ],
        [
            Process(WORKER, a_node, worker),
            Process(TRAIN_DRIVER, 1, memory.train_driver(job, machine)),
            Process(PREPROCESS_DRIVER, 1, memory.preprocess_driver(job, machine)),
            Process(TASK, max(1, int(machine.cores)), memory.preprocess_task(job, machine), memory.lookup_bytes(job)),
            Process(ACTOR, actors, memory.evaluation_actor(job, machine)),
            Process(EVALUATE_DRIVER, 1, memory.evaluation_driver(job, machine)),
            Process(EXPORT_DRIVER, 1, memory.export_driver(job, machine)),
        ],
    )


def _placed(job: Job, machine: Machine, bytes_each: float, nodes: int | None) -> tuple[int, int]:
    """Threads of a worker, and workers of a node.

    Where one node has room for all, they share its cores; on a cluster a worker has one thread, if not told otherwise.
    Source: pipelines.training.scaling.scaling_of.
    """

    def a_node(threads: int) -> int:
        return max(1, min(int(machine.cores // threads), int(machine.memory // bytes_each), job.workers))

    configured = job.config.train.threads
    shared = configured or max(1, int(machine.cores // job.workers))
    if nodes == 1 or (nodes is None and a_node(shared) == job.workers):
        return shared, job.workers
    threads = configured or 1
    return threads, a_node(threads) if nodes is None else math.ceil(job.workers / nodes)


def _preprocess(job: Job, machine: Machine, nodes: int) -> Stage:
    return Stage(
        PREPROCESS,
        {
            "start": machine.start_preprocess,
            "compute": preprocessing.pass_seconds(job, machine, machine.cores * nodes),
            "disk": preprocessing.disk_seconds(job, machine, nodes),
            "driver": preprocessing.driver_seconds(job, machine),
        },
    )


def _epoch(job: Job, machine: Machine, threads: int, a_node: int) -> Stage:
    return Stage(
        EPOCH,
        {
            "compute": job.steps * training.compute_seconds(job, machine, threads),
            "network": job.steps * training.network_seconds(job, machine, a_node),
            "reports": training.report_seconds(job, machine),
            "validation": training.validation_seconds(job, machine, threads),
            "disk": training.checkpoint_seconds(job, machine),
        },
    )


def _train(job: Job, machine: Machine, epoch: Stage) -> Stage:
    """All epochs, and the best model written twice: the artifact, and MLflow's copy of it."""
    epochs = job.config.train.epochs
    published = 2 * memory.model_bytes(job) / machine.disk
    each = {name: epochs * seconds for name, seconds in epoch.seconds.items()}
    return Stage(TRAIN, {"start": machine.start_train, **each, "driver": published})


def _ranking(job: Job, machine: Machine, name: str, seconds: float) -> Stage:
    """A stage whose actors load the model and rank."""
    loaded = memory.model_bytes(job) / machine.disk
    return Stage(name, {"start": machine.start_evaluate, "compute": seconds, "disk": loaded})

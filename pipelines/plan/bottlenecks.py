"""Where a plan breaks first, and what to change: memory that does not fit, then the stages by their hours."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.config.numbers import show_bytes, show_seconds
from pipelines.plan import plan as names
from pipelines.plan.constants import BUCKETS
from pipelines.plan.memory import RANKED, TRAIN_SPLIT, training_worker
from pipelines.plan.plan import Plan, Process, Stage
from pipelines.plan.training import compute_seconds, network_seconds
from pipelines.plan.workload import Workload
from pipelines.words import counted

LONG_S = 24 * 3600  # a stage beyond that is a bottleneck
NOT_BUILT = "(not built)"
TILES = f"keep item vectors on several nodes, each searching its own {NOT_BUILT}"
KINDS = {"start": "driver", "reports": "driver", "validation": "compute"}  # of a stage's seconds, where not their name


@dataclass(frozen=True)
class Bottleneck:
    """kind : compute, network, memory, disk or driver.  where, change : for people."""

    kind: str
    where: str
    change: str


def bottlenecks(plan: Plan) -> list[Bottleneck]:
    """Find the bottlenecks, the worst first; where all fits and nothing takes a day, the longest stage alone."""
    short = [process for process in plan.processes if part_of_node_memory(plan, process) > 1]
    found = [_memory(plan, process) for process in sorted(short, key=lambda each: -part_of_node_memory(plan, each))]
    stages = sorted((each for each in plan.stages if each.name != names.EPOCH), key=lambda each: -each.total)
    slow = [stage for stage in stages if stage.total > LONG_S]
    return found + [_time(plan, stage) for stage in (slow if found or slow else stages[:1])]


def part_of_node_memory(plan: Plan, process: Process) -> float:
    """Return the part of a node's memory that all such processes on it take; above 1 they do not fit."""
    return process.node_bytes / plan.machine.memory


def _memory(plan: Plan, process: Process) -> Bottleneck:
    part, size = max(process.parts.items(), key=lambda pair: pair[1])
    number = f", {process.a_node:,} of them," if process.a_node > 1 else ""
    where = (
        f"{process.name}{number}: {show_bytes(process.node_bytes)} on a node of {show_bytes(plan.machine.memory)}, "
        f"most of each {part} ({show_bytes(size)})"
    )
    kind = "driver" if process.name in names.DRIVERS else "memory"
    return Bottleneck(kind, where, _memory_change(plan, process.name, part))


def _memory_change(plan: Plan, process: str, part: str) -> str:
    if process == names.WORKER:
        if part == RANKED:
            return f"every worker holds all items' vectors at a validation: {TILES}"
        return "train.input=stream" if part == TRAIN_SPLIT else _table_change(plan)
    return {
        names.TRAIN_DRIVER: f"a larger node for the head; or save the artifact by shards and {TILES}",
        names.PREPROCESS_DRIVER: "data.min_item_events leaves rare items out; or vocabularies and tables joined by "
        f"ranges of hashes, a task each {NOT_BUILT}",
        names.TASK: f"nodes of fewer cores or more memory; or more buckets than {BUCKETS:,} {NOT_BUILT}",
        names.ACTOR: TILES,
        names.EVALUATE_DRIVER: "fewer test users (user_holdout, data.split.held_out=0.01); or metrics added up slice "
        f"by slice {NOT_BUILT}",
        names.EXPORT_DRIVER: f"a larger node for the head; or the table read and written by ranges {NOT_BUILT}",
    }[process]


def _table_change(plan: Plan) -> str:
    if plan.workload.config.train.shard_items:
        return "more workers, optim.table_optimizer=adagrad (a third), a smaller model.dim, or data.min_item_events"
    sharded = sum(training_worker(_with_train(plan.workload, shard_items=True), plan.machine).values())
    return f"train.shard_items=true: a worker then takes {show_bytes(sharded)}"


def _time(plan: Plan, stage: Stage) -> Bottleneck:
    kind, seconds = max(stage.seconds.items(), key=lambda pair: pair[1])
    where = f"{stage.name}: {show_seconds(stage.total)}, of which {kind} {show_seconds(seconds)}"
    return Bottleneck(KINDS.get(kind, kind), where, _time_change(plan, stage.name, kind))


def _time_change(plan: Plan, stage: str, kind: str) -> str:
    if kind == "start":
        return "nothing: it is the start of Python, Ray and MLflow"
    if stage == names.PREPROCESS:
        return {
            "driver": f"item counts added in a tree of tasks, or by ranges of hashes {NOT_BUILT}",
            "disk": "more nodes, or faster storage for home",
        }.get(kind, "more nodes: tasks need nothing of each other")
    if stage in (names.EVALUATE, names.EXPORT):
        fewer = "fewer test users (user_holdout); " if stage == names.EVALUATE else ""
        return (
            f"more actors (train.workers); {fewer}an approximate index in place of all "
            f"{plan.workload.items:,.0f} items a user {NOT_BUILT}"
        )
    return {
        "compute": f"{_workers_for_a_day(plan)}; or GPUs (-m flop=... and their other rates), fewer epochs, "
        "train.targets_per_user",
        "validation": "train.validation_users=2000: a fixed sample; without it every user is ranked",
        "network": f"a larger train.batch_size repeats rows more; or rows in bfloat16 {NOT_BUILT}"
        if plan.workload.config.train.shard_items
        else "train.shard_items=true: rows go to their owner alone",
    }.get(kind, "validate less often (train.validate_every_steps), or faster storage for home")


def _workers_for_a_day(plan: Plan) -> str:
    """Find the fewest workers, a power of two times today's with the batch grown alike, that train in a day."""
    train = plan.workload.config.train
    for factor in (2**n for n in range(1, 16)):
        grown = _with_train(plan.workload, workers=factor * train.workers, batch_size=factor * train.batch_size)
        step = compute_seconds(grown, plan.machine, plan.threads) + network_seconds(
            grown, plan.machine, plan.workers_a_node
        )
        if train.epochs_in_all * grown.steps * step < LONG_S:
            return (
                f"{counted(grown.workers, 'worker')} with {factor} times the batch train in a day, validations left out"
            )
    return "no number of such workers trains in a day: the exchange grows with them"


def _with_train(workload: Workload, **changes: object) -> Workload:
    train = workload.config.train.model_copy(update=changes)
    return replace(workload, config=workload.config.model_copy(update={"train": train}))

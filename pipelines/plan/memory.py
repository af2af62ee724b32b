"""Bytes that the processes of each stage hold at their peak. Pure functions; float32 and int64, ids of 8 bytes."""

from __future__ import annotations

from typing import Literal

from pipelines.plan.code import (
    BLOCK_ROWS,
    BUCKETS,
    EVENT_BYTES,
    EVENTS_PER_PART,
    EXCHANGED_AT_ONCE,
    FIRST_ITEM,
    MEMORY_SHARE,
    PROFILE_BYTES,
    TILE_SCORES,
    TILE_USERS,
    USER_BYTES,
)
from pipelines.plan.distinct_items import distinct_items
from pipelines.plan.job import Job
from pipelines.plan.machine import Machine

Parts = dict[str, float]  # bytes, or seconds, by what they go to

EMPTY = "the process itself"
TRAIN_SPLIT, STREAMED = "train split", "train split, two windows"
TABLE = "item table"
FITTED_EVENTS = 20_000_000  # at most; pipelines.evaluation.baselines
RANKED = "validation: item vectors, scores of 128 users"

STREAM_BYTES = 100  # of an event of `shuffle_events`: two windows of them (docs/design.md, measured)
STEP_COPIES = 6  # of a step's (B, L, d) and (R, d) floats: values, gradients, what autograd keeps, moments in flight
COUNT_BYTES = 40  # of an item while counts are added: the sums twice (16 each), and a hash
DRIVER_ITEM_BYTES = 128  # preprocess: counts 16, vocabulary 20, lookup 24 and its copy 24, occurrences 16, table 28
CLEAN_BYTES = 24  # of a clean event: user, item, time
FEATURE_ROW_BYTES = 50  # of a row of an item or profile table: an id and a few columns


def table_row_bytes(dim: int, optimizer: str) -> int:
    """A row and its state: 12 d + 4 with Adam, 4 d + 4 with Adagrad.  Source: mind_core.optim."""
    return 12 * dim + 4 if optimizer == "adam" else 4 * dim + 4


def held_rows(job: Job) -> float:
    """Rows of the item table that a worker holds: all, or every W-th.  Source: mind_core.embeddings.Shard."""
    rows = job.items + FIRST_ITEM
    return rows / job.workers if job.config.train.shard_items else rows


def item_bytes(job: Job) -> float:
    """Of an item beside its row: make-up 20 and 12 a feature, count 8, cold 1; of the negatives 17, in-batch 8 more.

    Make-up: offset 8, row 8, weight 4. Negatives: candidate 8, drawable 1, cumulative 8; label_share 8.
    Source: mind_core.features.Bags, pipelines.training.data.TrainData, mind_core.negatives.NegativeSampler.
    """
    return 20 + 12 * job.item_features + 9 + 17 + (8 if job.config.loss.in_batch else 0)


def model_bytes(job: Job) -> float:
    """Of a model, loaded or on disk: table, behaviour and item vectors, 12 d V.  Source: pipelines.models.artifact."""
    return 12 * job.config.model.dim * job.items


def input_bytes(job: Job) -> float:
    """Of the train split held in memory.  Source: pipelines.training.memory_input.memory_bytes."""
    each = USER_BYTES + PROFILE_BYTES * job.profile_features
    return EVENT_BYTES * job.train_events + each * job.train_users


def chosen_input(job: Job, node_bytes: float) -> Literal["memory", "stream"]:
    """What `train.input: auto` comes to with all workers on one node.

    Source: pipelines.training.memory_input.choose_input.
    """
    train = job.config.train
    if train.input != "auto":
        return train.input
    if train.include_validation:
        return "memory"
    return "memory" if input_bytes(job) <= MEMORY_SHARE * node_bytes / job.workers else "stream"


def step_bytes(job: Job) -> float:
    """Activations and gradients of a step: its (B / W, L, d) behaviours, R rows, and tiles of scores (5 of 4 MB)."""
    floats = job.rank_batch * job.width + distinct_items(job, job.rank_batch)
    return 4 * job.config.model.dim * STEP_COPIES * floats + 5 * 4 * TILE_SCORES


def ranking_bytes(job: Job) -> float:
    """Scores of a tile of users by all interests, and their best: 4 x 128 (K + 1) V.

    Source: mind_core.inference.search.
    """
    return 4 * TILE_USERS * (job.config.model.interests + 1) * job.items


def validation_bytes(job: Job) -> float:
    """All item vectors before and, if normalised, after (4 d V each), and `ranking_bytes`.

    Held by every worker, sharded table or not.  Source: mind_core.embeddings.pool_all, mind_core.inference.
    """
    model = job.config.model
    return (8 if model.normalize_items else 4) * model.dim * job.items + ranking_bytes(job)


def training_worker(job: Job, machine: Machine) -> Parts:
    """A worker of `mind train`, at a validation."""
    model, train = job.config.model, job.config.train
    optimizer = job.config.optim.table_optimizer
    streamed = chosen_input(job, machine.memory) == "stream"
    held = STREAM_BYTES * min(train.shuffle_events, job.events) if streamed else input_bytes(job)
    return {
        EMPTY: machine.worker,
        STREAMED if streamed else TRAIN_SPLIT: held,
        TABLE: 4 * model.dim * held_rows(job),
        f"{optimizer} state of the table": (table_row_bytes(model.dim, optimizer) - 4 * model.dim) * held_rows(job),
        "items' make-up, negatives": item_bytes(job) * job.items,
        "dense parameters, gradients, moments": 16 * job.parameters,
        "activations of a step": step_bytes(job),
        RANKED: validation_bytes(job),
        "validation: sequences": job.validated * (12 * job.length + 40),
    }


def train_driver(job: Job, machine: Machine) -> Parts:
    """The driver at the end: it loads the best model, saves it, loads it again, and lets MLflow try it on an example.

    Table, behaviour and item vectors (4 d V each) twice, and a tile's scores.
    Source: pipelines.training.train._publish, pipelines.models.artifact.
    """
    return {
        EMPTY: machine.driver,
        "best model and item vectors, twice": 2 * model_bytes(job),
        "scores of the example": ranking_bytes(job),
    }


def preprocess_driver(job: Job, machine: Machine) -> Parts:
    """Counts, vocabulary, and item and profile tables, which are read whole.

    Source: pipelines.preprocess.core_items.total, pipelines.preprocess.write_parts, pipelines.dataset.feature_rows.
    """
    rows = (job.items if job.item_features else 0) + (job.users if job.profile_features else 0)
    return {
        EMPTY: machine.driver_preprocess,
        "item counts while they are added": COUNT_BYTES * job.items,
        "vocabulary, lookup, item table": DRIVER_ITEM_BYTES * job.items,
        "item and profile tables": FEATURE_ROW_BYTES * rows,
    }


def part_events(job: Job) -> float:
    """Events of a part: about 0.5 M, unless a bucket (E / 1,024) has more (pipelines.preprocess.buckets.group)."""
    return max(min(job.events, EVENTS_PER_PART), job.events / BUCKETS)


def task_bytes(job: Job) -> float:
    """Events in the largest task: 3 copies of a block's (read) or of what is exchanged at once, 5 of a part's (sort),
    or 100 bytes each (write).

    Source: docs/preprocessing.md.
    """
    taken = max(CLEAN_BYTES * min(job.events, BLOCK_ROWS), min(CLEAN_BYTES * job.events, EXCHANGED_AT_ONCE))
    return max(3 * taken, max(5 * CLEAN_BYTES, 100) * part_events(job))


def preprocess_task(job: Job, machine: Machine) -> Parts:
    """The largest task of a core."""
    return {EMPTY: machine.task, "events": task_bytes(job)}


def lookup_bytes(job: Job) -> float:
    """Item ids and their places, 24 each, which all tasks of a node share.  Source: pipelines.log.ids.Lookup."""
    return 24 * job.items


def preprocess_node(job: Job, machine: Machine) -> float:
    """All processes of `mind preprocess` where one node does it all."""
    driver = sum(preprocess_driver(job, machine).values())
    return driver + machine.ray + lookup_bytes(job) + machine.cores * (machine.task + task_bytes(job))


def evaluation_actor(job: Job, machine: Machine) -> Parts:
    """An actor of `mind evaluate` and `mind export`: the model, and a tile's scores."""
    return {
        EMPTY: machine.worker,
        "table, behaviour and item vectors": model_bytes(job),
        "scores of 128 users": ranking_bytes(job),
    }


def evaluation_driver(job: Job, machine: Machine) -> Parts:
    """All users' results, before and after they are joined, metrics of two models, the vocabulary of users, the model.

    A test user of one target: index, length, row and item (8 each), a byte, and of a model and four baselines two ranks
    (4 each); of two models at a time 4 metrics at C cutoffs in five groups (8 each), of one group if seen items are
    filtered. The model is for figures.
    Source: pipelines.evaluation.evaluate, pipelines.evaluation.ranking.join_rankings, pipelines.evaluation.report.
    """
    evaluate = job.config.evaluate
    metrics = 2 * 32 * len(evaluate.cutoffs) * (5 if evaluate.seen == "keep" else 1)
    return {
        EMPTY: machine.driver,
        "train events, while baselines are fitted": 75 * min(job.events, FITTED_EVENTS),
        "results by user, twice, and metrics": (2 * 73 + metrics) * job.held_out,
        "vocabulary of users": 24 * job.users,
        "model, for figures": model_bytes(job),
    }


def export_driver(job: Job, machine: Machine) -> Parts:
    """The model, whose item vectors it writes, and users' raw ids, whole and by part (pipelines.retrieval.export)."""
    return {
        EMPTY: machine.driver,
        "model and item vectors": model_bytes(job),
        "ids of users, twice": 17 * job.users,
    }

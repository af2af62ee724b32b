"""Bytes that the processes of each stage hold at their peak. Pure functions; float32 and int64, ids of 8 bytes."""

from __future__ import annotations

from typing import Literal

from mind_core.sizes import factor_bytes
from mind_core.special_rows import FIRST_ITEM
from pipelines.plan.constants import (
    BLOCK_ROWS,
    BUCKETS,
    EVENT_BYTES,
    EVENTS_PER_PART,
    EXCHANGED_AT_ONCE,
    LABEL_BYTES,
    MEMORY_SHARE,
    PROFILE_BYTES,
    REPEATS_BYTES,
    SEARCH_EXACT,
    SEARCH_SCORES,
    TILE_SCORES,
    TILE_USERS,
    USER_BYTES,
)
from pipelines.plan.distinct_items import distinct_items
from pipelines.plan.machine import Machine
from pipelines.plan.workload import Workload

Parts = dict[str, float]  # bytes, or seconds, by what they go to

EMPTY = "the process itself"
TRAIN_SPLIT, STREAMED = "train split", "train split, two windows"
TABLE = "item table"
FITTED_EVENTS = 20_000_000  # at most; pipelines.evaluation.baselines
RANKED = "validation: item vectors, and a search's block; or the start"

STREAM_BYTES = 100  # of an event of `shuffle_events`: two windows of them (docs/design.md, measured)
STEP_COPIES = 6  # of a step's (B, L, d) and (R, d) floats: values, gradients, what autograd keeps, moments in flight
COUNT_BYTES = 40  # of an item while counts are added: the sums twice (16 each), and a hash
DRIVER_ITEM_BYTES = 128  # preprocess: counts 16, vocabulary 20, lookup 24 and its copy 24, occurrences 16, table 28
CLEAN_BYTES = 24  # of a clean event: user, item, time
FEATURE_ROW_BYTES = 50  # of a row of an item or profile table: an id and a few columns


def table_row_bytes(dim: int, optimizer: str) -> int:
    """Count the bytes of a row and its state: 12 d + 4 with Adam, 4 d + 4 with Adagrad.  Source: mind_core.optim."""
    return 12 * dim + 4 if optimizer == "adam" else 4 * dim + 4


def held_rows(workload: Workload) -> float:
    """Count the rows of the item table that a worker holds: all, or every W-th.  Source: mind_core.embeddings.Shard."""
    rows = workload.items + FIRST_ITEM
    return rows / workload.workers if workload.config.train.shard_items else rows


def item_bytes(workload: Workload) -> float:
    """Count an item's bytes beside its row: make-up 20, a feature 12, count 8, cold 1; negatives 17, in-batch 8 more.

    Make-up: offset 8, row 8, weight 4. Negatives: candidate 8, drawable 1, cumulative 8; label_share 8.
    Source: mind_core.features.Bags, pipelines.training.data.TrainData, mind_core.negatives.NegativeSampler.
    """
    return 20 + 12 * workload.item_features + 9 + 17 + (8 if workload.config.loss.in_batch else 0)


def model_bytes(workload: Workload) -> float:
    """Count a model's bytes, loaded or on disk: table, behaviour and item vectors, 12 d V.

    Source: pipelines.models.artifact.
    """
    return 12 * workload.config.model.dim * workload.items


def input_bytes(workload: Workload) -> float:
    """Count the bytes of the train split held in memory.  Source: pipelines.training.memory_input.memory_bytes."""
    each = USER_BYTES + PROFILE_BYTES * workload.profile_features
    event = EVENT_BYTES + REPEATS_BYTES * workload.config.model.uses_traits
    event += LABEL_BYTES * workload.config.train.uses_times(workload.config.data.split.protocol)
    return event * workload.train_events + each * workload.train_users


def chosen_input(workload: Workload, node_bytes: float) -> Literal["memory", "stream"]:
    """Say what `train.input: auto` comes to with all workers on one node.

    Source: pipelines.training.memory_input.choose_input.
    """
    train = workload.config.train
    if train.input != "auto":
        return train.input
    if train.include_validation:
        return "memory"
    return "memory" if input_bytes(workload) <= MEMORY_SHARE * node_bytes / workload.workers else "stream"


def step_bytes(workload: Workload) -> float:
    """Count activations and gradients of a step: (B / W, L, d) behaviours, R rows, and tiles of scores (5 of 4 MB)."""
    floats = workload.rank_batch * workload.width + distinct_items(workload, workload.rank_batch)
    return 4 * workload.config.model.dim * STEP_COPIES * floats + 5 * 4 * TILE_SCORES


def search_bytes() -> float:
    """Count the bytes of a search, whatever it searches: a block's products, and thrice what is summed in order.

    Source: mind_core.search.
    """
    return 4 * (SEARCH_SCORES + 3 * SEARCH_EXACT)


def rule_bytes(workload: Workload) -> float:
    """Count the bytes of the scores that a rule gives 128 users, twice: 2 x 4 x 128 V.

    Source: mind_core.baselines, mind_core.shelves.
    """
    return 2 * 4 * TILE_USERS * workload.items


def validation_bytes(workload: Workload) -> float:
    """Count all item vectors before and, if normalised, after (4 d V each), and `search_bytes`.

    Held by every worker, sharded table or not.  Source: mind_core.embeddings.pool_all, mind_core.inference.
    """
    model = workload.config.model
    return (8 if model.normalize_items else 4) * model.dim * workload.items + search_bytes()


def start_bytes(workload: Workload) -> float:
    """Count the bytes of the factors that the table may begin with: 32 (d + 16) V.  Source: mind_core.sizes."""
    config, items = workload.config, int(workload.items)
    return factor_bytes(config.model.dim, items) if config.begins_with_factors(items) else 0


def training_worker(workload: Workload, machine: Machine) -> Parts:
    """Add up the memory of a worker of `mind train`, at a validation, or at the start if that takes more."""
    model, train = workload.config.model, workload.config.train
    optimizer = workload.config.optim.table_optimizer
    streamed = chosen_input(workload, machine.memory) == "stream"
    held = STREAM_BYTES * min(train.shuffle_events, workload.events) if streamed else input_bytes(workload)
    return {
        EMPTY: machine.worker,
        STREAMED if streamed else TRAIN_SPLIT: held,
        TABLE: 4 * model.dim * held_rows(workload),
        f"{optimizer} state of the table": (table_row_bytes(model.dim, optimizer) - 4 * model.dim)
        * held_rows(workload),
        "items' make-up, negatives": item_bytes(workload) * workload.items,
        "dense parameters, gradients, moments": 16 * workload.parameters,
        "activations of a step": step_bytes(workload),
        RANKED: max(validation_bytes(workload), start_bytes(workload)),
        "validation: sequences": workload.validated * (12 * workload.length + 40),
    }


def train_driver(workload: Workload, machine: Machine) -> Parts:
    """Add up the driver at its end: it loads the best model, saves it, loads it again, and lets MLflow try an example.

    Table, behaviour and item vectors (4 d V each) twice, and a search.
    Source: pipelines.training.train._publish, pipelines.models.artifact.
    """
    return {
        EMPTY: machine.driver,
        "best model and item vectors, twice": 2 * model_bytes(workload),
        "search of the example": search_bytes(),
    }


def preprocess_driver(workload: Workload, machine: Machine) -> Parts:
    """Add up the driver's memory: counts, vocabulary, and item and profile tables, which are read whole.

    Source: pipelines.preprocess.core_items.total, pipelines.preprocess.write_parts, pipelines.dataset.feature_rows.
    """
    rows = (workload.items if workload.item_features else 0) + (workload.users if workload.profile_features else 0)
    return {
        EMPTY: machine.driver_preprocess,
        "item counts while they are added": COUNT_BYTES * workload.items,
        "vocabulary, lookup, item table": DRIVER_ITEM_BYTES * workload.items,
        "item and profile tables": FEATURE_ROW_BYTES * rows,
    }


def part_events(workload: Workload) -> float:
    """Count a part's events: about 0.5 M, unless a bucket (E / 1,024) has more.

    Source: pipelines.preprocess.buckets.group.
    """
    return max(min(workload.events, EVENTS_PER_PART), workload.events / BUCKETS)


def task_bytes(workload: Workload) -> float:
    """Count the bytes of events in the largest task.

    3 copies of a block's (read) or of what is exchanged at once, 5 of a part's (sort), or 100 bytes each (write).

    Source: docs/preprocessing.md.
    """
    taken = max(CLEAN_BYTES * min(workload.events, BLOCK_ROWS), min(CLEAN_BYTES * workload.events, EXCHANGED_AT_ONCE))
    return max(3 * taken, max(5 * CLEAN_BYTES, 100) * part_events(workload))


def preprocess_task(workload: Workload, machine: Machine) -> Parts:
    """Add up the memory of the largest task of a core."""
    return {EMPTY: machine.task, "events": task_bytes(workload)}


def lookup_bytes(workload: Workload) -> float:
    """Count item ids and their places, 24 each, which all tasks of a node share.  Source: pipelines.log.ids.Lookup."""
    return 24 * workload.items


def preprocess_node(workload: Workload, machine: Machine) -> float:
    """Add up the memory of all processes of `mind preprocess` where one node does it all."""
    driver = sum(preprocess_driver(workload, machine).values())
    return driver + machine.ray + lookup_bytes(workload) + machine.cores * (machine.task + task_bytes(workload))


def evaluation_actor(workload: Workload, machine: Machine) -> Parts:
    """Add up the memory of an actor of `mind evaluate`: the model, a rule's scores; `mind export` needs less."""
    return {
        EMPTY: machine.worker,
        "table, behaviour and item vectors": model_bytes(workload),
        "scores of 128 users by a rule": max(search_bytes(), rule_bytes(workload)),
    }


def evaluation_driver(workload: Workload, machine: Machine) -> Parts:
    """Add up users' results, before and after they are joined, metrics of two models, the vocabulary and the model.

    A test user of one target: index, length, row and item (8 each), a byte, and of a model and four baselines two ranks
    (4 each), what its list is made of (5 numbers of 4) and how many interests it has and used (a byte each); of two
    models at a time 4 metrics at C cutoffs in six groups (8 each), of two groups if seen items are filtered, and the 5
    of the list. The model is for figures.
    Source: pipelines.evaluation.evaluate, pipelines.evaluation.ranking.join_rankings, pipelines.evaluation.report.
    """
    evaluate = workload.config.evaluate
    metrics = 2 * (32 * len(evaluate.cutoffs) * (6 if evaluate.seen == "keep" else 2) + 40)
    return {
        EMPTY: machine.driver,
        "train events, while baselines are fitted": 75 * min(workload.events, FITTED_EVENTS),
        "results by user, twice, and metrics": (2 * 183 + metrics) * workload.held_out,
        "vocabulary of users": 24 * workload.users,
        "model, for figures": model_bytes(workload),
    }


def export_driver(workload: Workload, machine: Machine) -> Parts:
    """Add up the model, whose item vectors it writes, and users' raw ids, whole and by part.

    Source: pipelines.retrieval.export.
    """
    return {
        EMPTY: machine.driver,
        "model and item vectors": model_bytes(workload),
        "ids of users, twice": 17 * workload.users,
    }

"""How long preprocessing takes, and what lies on disk."""

from __future__ import annotations

import math

from pipelines.plan.code import BUCKETS, COUNTS_HELD, EVENTS_PER_PART
from pipelines.plan.job import Job
from pipelines.plan.machine import Machine
from pipelines.plan.memory import CLEAN_BYTES, Parts

LOG_BYTES = 12  # of an event in compressed Parquet: ids and a time
EVENTS_BYTES = 12  # `events/`, of an event; integer ids (docs/preprocessing.md)
SEQUENCE_BYTES = 20  # `sequences/`: an item and a time in each of three splits, compressed
ITEM_BYTES, USER_BYTES = 6, 8  # item table and vocabulary; vocabulary of users: measured, compressed
PAGE_BYTES = 100e3  # quality.html, quality.json, manifest.json


def parts(job: Job) -> int:
    """About 0.5 M events each, at most a bucket each.  Source: pipelines.preprocess.buckets.group."""
    return max(1, min(BUCKETS, round(job.events / EVENTS_PER_PART)))


def disk(job: Job) -> Parts:
    """What lies on disk: the exchange until the end, the dataset for good."""
    return {
        "the log itself": LOG_BYTES * job.events,
        "clean events and exchange, until the end": 2 * CLEAN_BYTES * job.events,
        **dataset(job),
    }


def dataset(job: Job) -> Parts:
    """Compressed, of integer ids and times in microseconds.  Source: pipelines.dataset.part_files, measured."""
    return {
        "dataset: events/ (for --append)": EVENTS_BYTES * job.events,
        "dataset: sequences/": SEQUENCE_BYTES * job.events,
        "dataset: items, vocabularies": ITEM_BYTES * job.items + USER_BYTES * job.users,
        "dataset: quality page, manifest": PAGE_BYTES,
    }


def moved_bytes(job: Job) -> float:
    """Read and written: the log once, clean events, exchange and events/ twice (written, read), sequences once."""
    each = LOG_BYTES + 4 * CLEAN_BYTES + 2 * EVENTS_BYTES + SEQUENCE_BYTES
    return each * job.events


def pass_seconds(job: Job, machine: Machine, cores: float) -> float:
    """The passes' computing: E / (rate x cores that have a task)."""
    return job.events / machine.clean / min(cores, parts(job))


def disk_seconds(job: Job, machine: Machine, nodes: int) -> float:
    """What reading and writing takes beyond computing: a task of one core waits while others compute.

    Nothing on a single node whose page cache, half of its memory, has room for the exchange and events/.
    """
    if nodes == 1 and (CLEAN_BYTES + EVENTS_BYTES) * job.events <= machine.memory / 2:
        return 0.0
    return max(0.0, moved_bytes(job) / (machine.disk * nodes) - pass_seconds(job, machine, machine.cores * nodes))


def driver_seconds(job: Job, machine: Machine) -> float:
    """The driver adds the parts' item counts, eight parts at a time to all so far: about parts / 8 x V rows, and the
    parts' own; then sorts and encodes V items, some ten times a row's adding.

    Source: pipelines.preprocess.core_items.total.
    """
    count = parts(job)
    own = min(job.items, job.events / count)  # distinct items of a part, at most
    added = math.ceil(count / COUNTS_HELD) * job.items + count * own
    return (added + 10 * job.items) / machine.group

"""How long preprocessing takes, and what lies on disk."""

from __future__ import annotations

import math

from pipelines.plan.constants import BUCKETS, COUNTS_HELD, EVENTS_PER_PART
from pipelines.plan.machine import Machine
from pipelines.plan.memory import CLEAN_BYTES, Parts
from pipelines.plan.workload import Workload

LOG_BYTES = 12  # of an event in compressed Parquet: ids and a time
EVENTS_BYTES = 12  # `events/`, of an event; integer ids (docs/preprocessing.md)
SEQUENCE_BYTES = 20  # `sequences/`: an item and a time in each of three splits, compressed
ITEM_BYTES, USER_BYTES = 6, 8  # item table and vocabulary; vocabulary of users: measured, compressed
PAGE_BYTES = 100e3  # quality.html, quality.json, manifest.json


def parts(workload: Workload) -> int:
    """Count the parts: about 0.5 M events each, at most a bucket each.  Source: pipelines.preprocess.buckets.group."""
    return max(1, min(BUCKETS, round(workload.events / EVENTS_PER_PART)))


def disk(workload: Workload) -> Parts:
    """Add up the bytes on disk: the exchange until the end, the dataset for good."""
    return {
        "the log itself": LOG_BYTES * workload.events,
        "clean events and exchange, until the end": 2 * CLEAN_BYTES * workload.events,
        **dataset(workload),
    }


def dataset(workload: Workload) -> Parts:
    """Add up the dataset's bytes, compressed, of integer ids and times in microseconds.

    Source: pipelines.dataset.part_files, measured.
    """
    return {
        "dataset: events/ (for --append)": EVENTS_BYTES * workload.events,
        "dataset: sequences/": SEQUENCE_BYTES * workload.events,
        "dataset: items, vocabularies": ITEM_BYTES * workload.items + USER_BYTES * workload.users,
        "dataset: quality page, manifest": PAGE_BYTES,
    }


def moved_bytes(workload: Workload) -> float:
    """Count what is read and written: the log once, clean events, exchange and events/ twice each, sequences once."""
    each = LOG_BYTES + 4 * CLEAN_BYTES + 2 * EVENTS_BYTES + SEQUENCE_BYTES
    return each * workload.events


def pass_seconds(workload: Workload, machine: Machine, cores: float) -> float:
    """Estimate the passes' computing: E / (rate x cores that have a task)."""
    return workload.events / machine.clean / min(cores, parts(workload))


def disk_seconds(workload: Workload, machine: Machine, nodes: int) -> float:
    """Estimate reading and writing beyond computing: a task of one core waits while others compute.

    Nothing on a single node whose page cache, half of its memory, has room for the exchange and events/.
    """
    if nodes == 1 and (CLEAN_BYTES + EVENTS_BYTES) * workload.events <= machine.memory / 2:
        return 0.0
    return max(
        0.0, moved_bytes(workload) / (machine.disk * nodes) - pass_seconds(workload, machine, machine.cores * nodes)
    )


def driver_seconds(workload: Workload, machine: Machine) -> float:
    """Estimate what the driver does alone.

    It adds the parts' item counts, eight parts at a time to all so far: about parts / 8 x V rows, and the parts' own;
    then sorts and encodes V items, some ten times a row's adding.

    Source: pipelines.preprocess.core_items.total.
    """
    count = parts(workload)
    own = min(workload.items, workload.events / count)  # distinct items of a part, at most
    added = math.ceil(count / COUNTS_HELD) * workload.items + count * own
    return (added + 10 * workload.items) / machine.group

"""Users with more events than any person has: what they cost is asked before, and said afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.config.numbers import show_bytes
from pipelines.config.schema import DataConfig
from pipelines.dataset.sorted_events import SortedEvents
from pipelines.errors import UserError
from pipelines.log.ids import Int64s
from pipelines.models.room import memory_of_machine
from pipelines.preprocess.buckets import Run
from pipelines.progress import console

EVENT_BYTES = 120  # of an event while its part is sorted, five copies of user, item and time: docs/preprocessing.md
MANY = 100_000  # events of a user that are worth a word

Heaviest = list[Any]  # a user's id as text, and its events: JSON


def require_room_to_sort(data: DataConfig, counts: Int64s, runs: Sequence[Run], have: int | None = None) -> None:
    """Refuse a log of which one part, the events of some users, could not be sorted in this machine's memory.

    counts : events by bucket.

    Raises
    ------
    UserError
        With the bytes that it would take.
    """
    largest = max((int(counts[first:stop].sum()) for first, stop in runs), default=0)
    limit = memory_of_machine() if have is None else have
    if largest * EVENT_BYTES > limit:
        raise UserError(
            f"{data.events.path}: {largest:,} events are of a few users and must be sorted together, which would take "
            f"{show_bytes(largest * EVENT_BYTES)}, and there are {show_bytes(limit)}; is one of them a robot, or an "
            "empty id? data.events.exclude leaves its rows out"
        )


def heaviest(events: SortedEvents) -> Heaviest:
    """Find the user with the most events."""
    if not len(events.user):
        return ["", 0]
    counts = np.bincount(events.user)
    user = int(counts.argmax())
    return [str(events.users[user]), int(counts[user])]


def warn_of_heaviest(data: DataConfig, found: Sequence[Heaviest]) -> None:
    """Say who has more events than any person, unless a setting cuts them already."""
    user, events = max(found, key=lambda each: each[1]) if found else ("", 0)
    if events > MANY and (data.max_user_events is None or data.max_user_events > MANY):
        console.print(
            f"User {user} has {events:,} events: a robot? --set data.max_user_events={MANY} keeps each user's newest, "
            "data.events.exclude leaves a user out",
            markup=False,
            soft_wrap=True,
        )

"""A log to try things on, in frames: that of `mind generate`, with planted interests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow.parquet as pq

from pipelines.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class SampleLog(NamedTuple):
    """Frames of a made-up log.

    events : user_id, item_id, time.  items : item_id, category, price.  users : user_id, group.
    """

    events: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame


def sample_log(events: int = 20_000, users: int = 500, items: int = 400, seed: int = 0) -> SampleLog:
    """Make a log in which every user has three interests, each of a cluster of items; the same seed, the same log.

    Raises
    ------
    UserError
        If the sizes cannot be met.
    """
    from pipelines.preprocess.synthetic import generate

    with tempfile.TemporaryDirectory() as scratch:
        try:
            made = generate(Path(scratch), events=events, users=users, items=items, seed=seed)
        except ValueError as error:
            raise UserError(f"sample_log(): {error}") from None
        assert made.items is not None
        assert made.profile is not None
        return SampleLog(*(pq.read_table(path).to_pandas() for path in (made.events, made.items, made.profile)))

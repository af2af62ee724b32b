"""The users that `mind recommend --user` names, found in the dataset: with Arrow alone, so that a mistyped one is told
at once.
"""

from __future__ import annotations

import difflib

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SPLITS
from pipelines.errors import UserError

NEEDED = ("user", "items", "targets")  # of a row of a split, beside the profile


def histories_of(dataset: Dataset, users: list[str], latest: bool) -> pa.Table:
    """Find each user's row: of the test split, else validation, else train, in the order of `users`.

    latest : else of the newcomers, whose events are all held out.

    Raises
    ------
    UserError
        For a user that the dataset does not know, or knows without a history.
    """
    indices = _indices(dataset, users)
    found: dict[int, pa.Table] = {}
    files = [dataset.split_files(split) for split in reversed(SPLITS)]
    for some in [*files, *([dataset.newcomer_files()] if latest else [])]:
        missing = [index for index in indices if index not in found]
        if missing and some:
            table = dataset.rows_of(some, missing)
            kept = [name for name in table.column_names if name in NEEDED or name.startswith("profile_")]
            table = table.select(kept)
            found |= {int(index): table.slice(row, 1) for row, index in enumerate(table["user"].to_pylist())}
    for user, index in zip(users, indices, strict=True):
        if index not in found:
            raise UserError(f"--user {user}: no history to infer from: all events of this user lie in the held-out "
                            f"time, or there was only one ({dataset}); --latest counts those too")  # fmt: skip
    return pa.concat_tables([found[index] for index in indices]).combine_chunks()


def _indices(dataset: Dataset, users: list[str]) -> list[int]:
    """User indices of raw ids given as text."""
    ids = dataset.vocabulary("users")["id"].combine_chunks()
    text = ids.cast(pa.string())
    places = pc.index_in(pa.array(users, pa.string()), value_set=text).to_pylist()
    for user, place in zip(users, places, strict=True):
        if place is None:
            near = difflib.get_close_matches(user, text.slice(0, 100_000).to_pylist(), 3, 0.5) or text[:3].to_pylist()
            raise UserError(f"--user {user}: {dataset} has no such user; some that it has: {', '.join(near)}")
    return [int(place) for place in places]

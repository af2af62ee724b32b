"""`mind recommend`: top-N lists, for a few users to look at, or for all to use.

A few users need no Ray. For all, Ray Data's actors list the items of slices of users and the driver writes the lists as
they come, in order.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from mind_core.list_rules import NO_RULES, ListRules
from mind_core.sequences import Sequences
from mind_core.shelves import Shelf
from pipelines.cluster.session import ray_session
from pipelines.config.home_location import shown
from pipelines.config.names import file_name
from pipelines.config.schema import Config, ListsConfig
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SPLITS
from pipelines.errors import UserError
from pipelines.lists.rules import rules_of
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.find import find_model
from pipelines.models.over_users import EVERYONE, STATS, UserPass, UserWorker
from pipelines.progress import console, output
from pipelines.retrieval.list_files import write_lists
from pipelines.retrieval.reasons import with_reasons
from pipelines.retrieval.show_lists import show_lists
from pipelines.storage.tables import write_text

NEEDED = ("user", "items", "targets")  # of a row of a split, beside the profile


def recommend(
    config: Config,
    users: list[str] | None = None,
    out: Path | None = None,
    model: str | None = None,
    latest: bool = False,
    why: bool = False,
) -> Path | None:
    """Recommend to each user as many items as `config.evaluate.shelves` has places for, by the rules of `config.lists`.

    Parameters
    ----------
    users : raw ids as text, printed one by one; None: all users, written to a file.
    out : file to write (.parquet, .csv, .jsonl) instead of printing; for all users the default is
        <home>/recommendations/<model>.parquet.
    model : as `find_model` takes it.
    latest : infer from everything that is known of a user, the held-out items too: what production wants. Otherwise
        those are left out, and marked where they are found again.
    why : say of each item what it comes from, as `with_reasons` does.

    Returns
    -------
    What was written, if anything.

    Raises
    ------
    UserError
        Without a dataset or a model of it; for a user that the dataset does not know.
    """
    dataset = Dataset.open(config.dataset_path)
    folder = find_model(config, dataset, model)
    if users is None:
        out = out or config.home_path / "recommendations" / f"{file_name(folder.name)}.parquet"
        rows = _everyone(config, dataset, folder, out, latest=latest, why=why)
        output.print(f"{rows:,} recommendations: {shown(out)}", soft_wrap=True)
        return out
    saved = load_model(folder)
    rules = told_rules(config, saved)
    histories = _rows(dataset, users, latest)
    sequences = saved.sequences(histories, latest)
    lists = _lists(saved, sequences, config.evaluate.shelves, rules, why)
    if out is None:
        held_out = [[] for _ in users] if latest else histories["targets"].to_pylist()
        show_lists(saved, sequences, lists, users, held_out, shelves=len(config.evaluate.shelves) > 1, why=why)
        return None
    ids = dataset.vocabulary("users")["id"].take(histories["user"])
    rows = write_lists([_with_ids(lists, ids)], out)
    output.print(f"{rows:,} recommendations: {shown(out)}", soft_wrap=True)
    return out


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


def _rows(dataset: Dataset, users: list[str], latest: bool) -> pa.Table:
    """Each user's row: of the test split, else validation, else train, in the order of `users`.

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


class ListItems(UserWorker):
    """Lists of the rows of a split: user (raw id), rank, again, score, interest, id, show_<column>."""

    @cached_property
    def rules(self) -> ListRules:
        """One copy of a node, in the object store."""
        read: ListRules = ray.get(self.arguments["rules"])
        return read

    def work(  # type: ignore[override]
        self, table: pa.Table, *, ids: Any, rules: Any, sizes: dict[Shelf, int], latest: bool, why: bool
    ) -> pa.Table:
        model = self.models[0]
        lists = _lists(model, model.sequences(table, latest), sizes, self.rules, why)
        return _with_ids(lists, ray.get(ids).take(table["user"]))


def told_rules(config: Config, model: SavedModel) -> ListRules:
    """Read the rules of lists for a model, and say what there is to say of them."""
    rules, told = rules_of(config, model.columns())
    for line in told:
        console.print(line, highlight=False)
    return rules


def _lists(
    model: SavedModel, sequences: Sequences, sizes: Mapping[Shelf, int], rules: ListRules, why: bool
) -> pa.Table:
    lists = model.recommend_shelves(sequences, sizes, rules)
    return with_reasons(model, sequences, lists) if why else lists


def _everyone(config: Config, dataset: Dataset, model: Path, out: Path, *, latest: bool, why: bool) -> int:
    """Write the lists of all users, those of the test split first; the number of rows."""
    # without rules the driver needs no model
    rules = NO_RULES if config.lists == ListsConfig() else told_rules(config, load_model(model))
    arguments = {"sizes": config.evaluate.shelves, "latest": latest, "why": why}
    with ray_session(config.ray, workers=config.train.workers, home=config.home_path):
        ids = ray.put(dataset.vocabulary("users")["id"].combine_chunks())
        arguments |= {"ids": ids, "rules": ray.put(rules)}
        everyone = UserPass(dataset, EVERYONE, config, ListItems, [model], arguments, newcomers=latest)
        rows = write_lists(everyone.blocks("Recommending"), out)
        write_text(everyone.stats(), config.home_path / "recommendations" / f"{out.stem}.{STATS}")
    return rows


def _with_ids(lists: pa.Table, ids: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Places in `ids` replaced by what is there."""
    return lists.set_column(0, "user", ids.take(lists["user"]))

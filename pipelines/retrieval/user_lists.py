"""Lists of users: of a few that were asked for, or of all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from mind_core.list_rules import NO_RULES, ListRules
from mind_core.sequences import Sequences
from mind_core.shelves import Shelf
from pipelines.config.home_location import shown
from pipelines.config.names import file_name
from pipelines.config.schema import Config, ListsConfig
from pipelines.dataset.dataset import Dataset
from pipelines.lists.rules import rules_of
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.find import find_model
from pipelines.models.over_users import EVERYONE, STATS, user_pass
from pipelines.models.users.worker import UserWorker
from pipelines.progress import console, output
from pipelines.retrieval.list_files import write_lists
from pipelines.retrieval.reasons import with_reasons
from pipelines.retrieval.show_lists import show_lists
from pipelines.storage.tables import write_text


def list_for(
    config: Config,
    dataset: Dataset,
    users: list[str],
    histories: pa.Table,
    out: Path | None,
    model: str | None,
    *,
    latest: bool,
    why: bool,
) -> Path | None:
    """Print the lists of some users, or write them to a file, as `recommend` says.

    histories : as `histories_of` gives them.
    """
    saved = load_model(find_model(config, dataset, model))
    rules = told_rules(config, saved)
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


def list_for_all(
    config: Config, dataset: Dataset, out: Path | None, model: str | None, *, latest: bool, why: bool
) -> Path:
    """Write the lists of all users, those of the test split first."""
    folder = find_model(config, dataset, model)
    out = out or config.home_path / "recommendations" / f"{file_name(folder.name)}.parquet"
    # without rules the driver needs no model
    rules = NO_RULES if config.lists == ListsConfig() else told_rules(config, load_model(folder))
    arguments = {"sizes": config.evaluate.shelves, "latest": latest, "why": why}
    shared = {"ids": dataset.vocabulary("users")["id"].combine_chunks(), "rules": rules}
    with user_pass(dataset, EVERYONE, config, ListItems, [folder], arguments, shared, newcomers=latest) as everyone:
        rows = write_lists(everyone.blocks("Recommending"), out)
        write_text(everyone.stats(), config.home_path / "recommendations" / f"{out.stem}.{STATS}")
    output.print(f"{rows:,} recommendations: {shown(out)}", soft_wrap=True)
    return out


class ListItems(UserWorker):
    """Lists of the rows of a split: user (raw id), rank, again, score, interest, id, show_<column>.

    shared : ids of the users, rules (ListRules).
    """

    def work(  # type: ignore[override]
        self, table: pa.Table, *, sizes: dict[Shelf, int], latest: bool, why: bool
    ) -> pa.Table:
        model = self.models[0]
        lists = _lists(model, model.sequences(table, latest), sizes, self.shared["rules"], why)
        return _with_ids(lists, self.shared["ids"].take(table["user"]))


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


def _with_ids(lists: pa.Table, ids: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Places in `ids` replaced by what is there."""
    return lists.set_column(0, "user", ids.take(lists["user"]))

"""`mind recommend --history`: the list of somebody who is not in the log, from item ids alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mind_core.inference import PopularityRetriever
from pipelines.config.home_location import shown
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import train_counts
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.find import find_model
from pipelines.progress import console, output
from pipelines.retrieval.list_files import write_lists
from pipelines.retrieval.reasons import with_reasons
from pipelines.retrieval.show_lists import show_lists
from pipelines.retrieval.user_lists import told_rules

NAMED = 5  # unknown ids in a line


def recommend_history(
    config: Config, ids: Sequence[str], out: Path | None = None, model: str | None = None, why: bool = False
) -> Path | None:
    """Recommend to a history of raw item ids, oldest first, as `recommend` does to a user of the log.

    Ids that the model does not know are left out, and named. If it knows none, the list is the popular one, and a line
    says so.

    Parameters
    ----------
    out, model, why : as of `recommend`.

    Raises
    ------
    UserError
        Without a dataset or a model of it.
    """
    dataset = Dataset.open(config.dataset_path)
    saved = load_model(find_model(config, dataset, model))
    rules = told_rules(config, saved)
    places = places_of(saved, ids)
    known = [place for place in places if place is not None]
    unknown = [text for text, place in zip(ids, places, strict=True) if place is None]
    for line in _about(unknown, len(ids)):
        console.print(line, highlight=False)
    if not known:
        console.print("No item of the history is known to the model: this is the popular list")
        retriever = PopularityRetriever(train_counts(saved.items), saved.card.config.max_history)
        saved = SavedModel(saved.path, saved.card, retriever, saved.items)
    history = pa.array([saved.item_ids.take(pa.array(known, pa.int64())).to_pylist()], pa.list_(saved.item_ids.type))
    sequences = saved.encode(history)
    lists = saved.recommend_shelves(sequences, config.evaluate.shelves, rules)
    if why:
        lists = with_reasons(saved, sequences, lists)
    if out is None:
        show_lists(saved, sequences, lists, ["of --history"], [[]], shelves=len(config.evaluate.shelves) > 1, why=why)
        return None
    rows = write_lists([lists.drop_columns("user")], out)
    output.print(f"{rows:,} recommendations: {shown(out)}", soft_wrap=True)
    return out


def places_of(model: SavedModel, ids: Sequence[str]) -> list[int | None]:
    """Find the row in the model's items of each raw id given as text; None for one that it does not know."""
    found: list[int | None] = pc.index_in(
        pa.array(ids, pa.string()), value_set=model.item_ids.cast(pa.string())
    ).to_pylist()
    return found


def _about(unknown: list[str], total: int) -> list[str]:
    if not unknown:
        return []
    named = ", ".join(unknown[:NAMED]) + (", ..." if len(unknown) > NAMED else "")
    return [f"--history: {len(unknown):,} of {total:,} ids are of no item of the model and are left out: {named}"]

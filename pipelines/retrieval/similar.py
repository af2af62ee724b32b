"""`mind similar`: the items that are most like an item, by the cosine of their vectors."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from rich.markup import escape
from rich.table import Table
from torch.nn import functional

from mind_core.hits import TopList
from mind_core.inference import MINDRetriever
from mind_core.search import Catalogue, search
from mind_core.special_rows import FIRST_ITEM
from pipelines.config.home_location import shown
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.find import find_model
from pipelines.progress import output
from pipelines.retrieval.list_files import write_lists
from pipelines.retrieval.show_lists import GAP, NARROWEST, cell, fitting, longest
from pipelines.retrieval.strangers import places_of
from pipelines.retrieval.user_lists import told_rules

NEAR = 3  # ids and names in the message on an unknown one
LOOKED_AT = 100_000  # ids


def similar(
    config: Config, items: Sequence[str], top: int = 20, out: Path | None = None, model: str | None = None
) -> Path | None:
    """List the items most like each of `items`, raw ids as text.

    Parameters
    ----------
    out : file to write instead of printing: item, rank, cosine, id, show_<column>.
    model : as `find_model` takes it.

    Raises
    ------
    UserError
        Without a dataset or a model with item vectors; for an item that the model does not know.
    """
    dataset = Dataset.open(config.dataset_path)
    saved = load_model(find_model(config, dataset, model))
    if not isinstance(saved.retriever, MINDRetriever):
        raise UserError(f"{saved.card.name}: encoder {saved.card.config.encoder} has no item vectors to compare")
    places = [_known(saved, text, place) for text, place in zip(items, places_of(saved, items), strict=True)]
    rules = told_rules(config, saved)
    found = nearest_items(saved.retriever.item_vectors, torch.tensor(places) + FIRST_ITEM, top, rules.allowed)
    table = _as_table(saved, places, found)
    if out is not None:
        rows = write_lists([table], out)
        output.print(f"{rows:,} similar items: {shown(out)}", soft_wrap=True)
        return out
    names = saved.item_names()
    for place in places:
        item = saved.item_ids[place]
        output.print(f"\n[bold]Like {escape(names[place + FIRST_ITEM])}[/bold] ({escape(str(item))})", highlight=False)
        output.print(_shown(table.filter(pc.equal(table["item"], item))))
    return None


def nearest_items(
    item_vectors: torch.Tensor, items: torch.Tensor, n: int, allowed: torch.Tensor | None = None
) -> TopList:
    """Find the n items with the highest cosine to each of `items` (B,), itself left out; `scores` are cosines.

    item_vectors : (V, d).  allowed : (V,) bool, the items that may be found; None: all.

    Examples
    --------
    >>> vectors = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [3.0, 3.0], [0.0, -1.0]])
    >>> found = nearest_items(vectors, torch.tensor([2]), 2)
    >>> found.items.tolist(), [round(score, 3) for score in found.scores[0].tolist()]
    ([[3, 4]], [0.707, 0.0])
    """
    directions = functional.normalize(item_vectors, dim=1)
    asked = directions[items].unsqueeze(1)  # (B, 1, d)
    own = torch.ones(len(items), 1, dtype=torch.bool)
    return search(Catalogue(directions), asked, own, n, seen=(torch.arange(len(items)), items), allowed=allowed)


def _known(model: SavedModel, text: str, place: int | None) -> int:
    """The row of an item; a UserError with some that are near for one that the model does not know."""
    if place is not None:
        return place
    ids = model.item_ids.slice(0, LOOKED_AT).cast(pa.string()).to_pylist()
    near = difflib.get_close_matches(text, ids, NEAR, 0.5) or ids[:NEAR]
    shown_columns = [name for name in model.items.column_names if name.startswith("show_")]
    named: list[str] = []
    if shown_columns and text.strip() and pa.types.is_string(model.items.schema.field(shown_columns[0]).type):
        alike = pc.match_substring(model.items[shown_columns[0]], text.strip(), ignore_case=True)
        rows = model.items.filter(pc.fill_null(alike, False)).slice(0, NEAR)
        named = [f"{row['id']} ({row[shown_columns[0]]})" for row in rows.to_pylist()]
    more = f"; named like it: {', '.join(named)}" if named else ""
    raise UserError(f"--item {text}: {model.card.name} has no such item; some that it has: {', '.join(near)}{more}")


def _as_table(model: SavedModel, places: list[int], found: TopList) -> pa.Table:
    there = found.items > 0
    columns = ["id", *(name for name in model.items.column_names if name.startswith("show_"))]
    told = model.items.select(columns).take(pa.array((found.items[there] - FIRST_ITEM).numpy()))
    rank = torch.arange(1, found.items.shape[1] + 1).expand_as(found.items)
    asked = np.repeat(np.array(places), there.sum(1).numpy())
    return pa.table(
        {
            "item": model.item_ids.take(pa.array(asked)),
            "rank": rank[there].numpy().astype(np.int32),
            "cosine": found.scores[there].numpy(),
            **{name: told[name] for name in columns},
        }
    )


def _shown(table: pa.Table) -> Table:
    """The items like one item, fitted to the terminal."""
    rows = table.to_pylist()
    printed = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    printed.add_column("rank", justify="right", width=4)
    printed.add_column("cosine", justify="right", width=6)
    names = ["id", *(name for name in table.column_names if name.startswith("show_"))]
    titles = {name: name.removeprefix("show_") for name in names}
    widest = {
        name: min(longest(), max(len(titles[name]), *(len(cell(row[name])) for row in rows))) if rows else NARROWEST
        for name in names
    }
    room = output.width - 10 - GAP * (1 + len(names)) - widest["id"]
    widths = {**fitting({name: widest[name] for name in names[1:]}, room), "id": widest["id"]}
    for name, width in widths.items():
        printed.add_column(titles[name], width=width, no_wrap=True, overflow="ellipsis")
    for row in rows:
        printed.add_row(str(row["rank"]), f"{row['cosine']:.3f}", *(cell(row[name]) for name in widths))
    return printed

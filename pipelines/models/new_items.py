"""Items that came after the training: rows of an item table become vectors, and the model's catalogue grows by them.

A new item is a cold one (docs/design.md): its vector is the mean of its features' embeddings, as far as training knows
their values. Nothing is trained, and the items that the model has keep their numbers and vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from mind_core.embeddings import pool_all
from mind_core.features import new_item_bags
from mind_core.inference import MINDRetriever
from pipelines.config.schema import Config
from pipelines.dataset.dataset import RAW, Dataset
from pipelines.dataset.feature_rows import FeatureRows
from pipelines.dataset.tensors import cold_mask, feature_columns, feature_specs, train_counts
from pipelines.dataset.vocabulary import encode_columns
from pipelines.errors import UserError
from pipelines.models.artifact import SavedModel
from pipelines.storage.digests import joint_digest, table_digest
from pipelines.words import counted


@dataclass(frozen=True)
class NewItems:
    """N new items.

    ids : raw ids.  vectors : (N, d), e_i before any normalisation.
    shown : the columns show_<name> and raw_<name> of the catalogue.
    there : rows left out, of items that the model has.  unknown : raw ids left out, as no value of theirs is known.
    """

    ids: pa.Array
    vectors: Tensor
    shown: pa.Table
    there: int
    unknown: pa.Array

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """Hash the ids and vectors: equal for equal items in the same order."""
        vectors = hashlib.sha256(self.vectors.numpy().tobytes()).hexdigest()
        return joint_digest([table_digest(pa.table({"id": self.ids})), vectors])

    def summary(self) -> list[str]:
        """Tell in lines what became of the rows."""
        lines = [f"{counted(len(self), 'new item has a vector', 'new items have vectors')}, made of features"]
        if self.there:
            there = counted(self.there, "row is an item", "rows are items")
            lines.append(f"{there} that the model has: their vectors stay")
        if len(self.unknown):
            lines.append(_left_out(self.unknown))
        return lines


def read_new_items(config: Config, dataset: Dataset, model: SavedModel, path: str) -> NewItems:
    """Read rows of the item table of `config` from another file, and make their vectors.

    Parameters
    ----------
    model : of `dataset`.

    Raises
    ------
    UserError
        For a model without item features, a file that cannot be read or lacks a column, ids of another type, and where
        no row is a new item of which the model knows something.
    """
    retriever, source = model.retriever, config.data.items
    if not isinstance(retriever, MINDRetriever) or not model.card.item_features or source is None:
        raise UserError(
            f"--items {path}: {model.card.name} has no item features (data.items.features), of which the vector of a "
            "new item is made; train a model with features, or train again with the items in the log"
        )
    rows = FeatureRows.read(source.model_copy(update={"path": path, "format": None}))
    rows = rows.aligned(model.item_ids.type, "the catalogue", log_is_text=True)
    fresh = pc.invert(pc.is_in(rows.ids, value_set=model.item_ids))
    ids, table = rows.ids.filter(fresh), rows.columns.filter(fresh)
    items = dataset.items()
    specs = feature_specs(model.card.item_features)
    encoded = pa.table({"row": pa.nulls(len(ids)), **encode_columns(dataset.encoders("item"), table, "feature")})
    bags, told = new_item_bags(
        feature_columns(encoded, specs, "feature"),
        feature_columns(items, specs, "feature"),
        cold_mask(train_counts(items), specs),
    )
    keep = pa.array(told.numpy())
    new = NewItems(
        ids.filter(keep),
        pool_all(retriever.model.item_table, bags)[told],
        pa.table({column: table[name].filter(keep) for column, name in _told(model, table.column_names).items()}),
        int(pc.sum(pc.invert(fresh)).as_py() or 0),
        ids.filter(pc.invert(keep)),
    )
    if not len(new):
        why = _left_out(new.unknown) if len(new.unknown) else "every row is an item that the model has"
        raise UserError(f"--items {path}: no new item to add: {why}")
    return new


def with_new_items(model: SavedModel, new: NewItems) -> SavedModel:
    """Return the model with a catalogue that ends in the new items."""
    assert isinstance(model.retriever, MINDRetriever)
    before = model.retriever.behaviour_vectors
    retriever = MINDRetriever(model.retriever.model, torch.cat([before, new.vectors.to(before)]))
    zeros, columns = pa.array([0] * len(new), pa.int64()), {}
    for field in model.items.schema:
        values = {"id": new.ids, "item": pa.array(range(len(before), len(before) + len(new)))}
        column = values.get(field.name, new.shown[field.name] if field.name in new.shown.column_names else zeros)
        columns[field.name] = column.cast(field.type)
    items = pa.concat_tables([model.items, pa.table(columns, schema=model.items.schema)]).combine_chunks()
    return SavedModel(model.path, model.card, retriever, items)


def _told(model: SavedModel, columns: Sequence[str]) -> dict[str, str]:
    """Find the columns of the catalogue that tell what an item table says: name -> name in the table."""
    told = {name: name.removeprefix("show_").removeprefix(RAW) for name in model.items.column_names}
    return {name: column for name, column in told.items() if name != column and column in columns}


def _left_out(unknown: pa.Array) -> str:
    few = ", ".join(str(each) for each in unknown[:3].to_pylist())
    return (
        f"{len(unknown):,} rows left out, the model knows no value of any of their features: their vectors would be 0 "
        f"or all alike (e.g. {few})"
    )

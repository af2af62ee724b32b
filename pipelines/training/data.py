"""What a training reads of a dataset, and the fresh model for it. Needs no Ray."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mind_core.config import ModelConfig
from mind_core.embeddings import WHOLE, Shard
from mind_core.evaluation import Targets
from mind_core.features import Bags, item_bags
from mind_core.model import MIND
from mind_core.sequences import Sequences
from mind_core.sizes import model_parts, training_parts
from pipelines.config.schema import Config, TrainConfig
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import (
    cold_mask,
    feature_columns,
    feature_specs,
    list_offsets,
    to_sequences,
    to_targets,
    train_counts,
    with_held_out,
)
from pipelines.log.ids import as_array, hash64
from pipelines.models.room import require_room
from pipelines.training.labels import EVERY_EVENT, HELD_OUT, LabelRule, label_rule, train_sequences


@dataclass(frozen=True)
class TrainData:
    """What a worker holds in memory: flat arrays of the splits, and the items' make-up.

    train : None where it is streamed.  validation : of the users to validate on.
    """

    train: Sequences | None
    validation: Sequences
    targets: Targets
    bags: Bags
    counts: torch.Tensor  # (V,) events per item index in the training split
    cold: torch.Tensor  # (V,) bool, items that training never sees, made of their features

    def to(self, device: torch.device) -> TrainData:
        """Return the same on a device."""
        targets = Targets(self.targets.items.to(device), self.targets.offsets.to(device))
        train = None if self.train is None else self.train.to(device)
        items = self.bags.to(device), self.counts.to(device), self.cold.to(device)
        return TrainData(train, self.validation.to(device), targets, *items)


def build_model(config: ModelConfig, dataset: Dataset, seed: int, shard: Shard = WHOLE) -> MIND:
    """Build a fresh model for a dataset; the same on every rank, but for the rows of the item table that it holds."""
    manifest = dataset.manifest
    specs = feature_specs(manifest.item_features), feature_specs(manifest.profile_features)
    return MIND(config, manifest.item_rows, *specs, seed, shard)


def require_room_to_train(config: Config, dataset: Dataset) -> None:
    """Refuse settings of a model that no memory of this machine could hold.

    Raises
    ------
    UserError
        With the bytes that they would take.
    """
    manifest, train = dataset.manifest, config.train
    specs = feature_specs(manifest.item_features), feature_specs(manifest.profile_features)
    parts = model_parts(config.model, manifest.item_rows, *specs)
    ranks = train.workers if train.shard_items else 1
    optimizer = config.optim.table_optimizer
    factored = manifest.item_rows if config.begins_with_factors(manifest.item_rows) else 0
    needed = training_parts(config.model, config.loss, parts, optimizer=optimizer, ranks=ranks, factored=factored)
    require_room(config.name, needed)


def horizon_of(config: TrainConfig, dataset: Dataset) -> int:
    """Tell how far ahead a label may lie: as set, or as many events as a validation user has targets.

    What a model is asked for and what it is trained for are then the same: one next item, or what comes in two weeks.
    """
    if config.horizon is not None:
        return config.horizon
    validation = dataset.manifest.splits["validation"]
    return max(1, round(validation.targets / max(1, validation.users)))


def load_data(
    dataset: Dataset,
    train: pa.Table | None,
    validation: pa.Table,
    include_validation: bool = False,
    rule: LabelRule = EVERY_EVENT,
) -> TrainData:
    """Load flat arrays from the Arrow tables of the splits; `include_validation`: as `train` was read."""
    manifest = dataset.manifest
    profile = feature_specs(manifest.profile_features)
    validation = validation.sort_by("user")
    return TrainData(
        None if train is None else train_sequences(train, profile, rule),
        to_sequences(validation, profile),
        to_targets(validation),
        *load_items(dataset, include_validation),
    )


def read_data(dataset: Dataset, config: TrainConfig, streamed: bool = False) -> TrainData:
    """Read what a worker holds of a dataset; `streamed`: without the train split."""
    columns, everything = columns_to_train(dataset), config.include_validation
    rule = EVERY_EVENT if streamed else label_rule(config, dataset)
    train = None if streamed else train_table(dataset, columns + rule.columns, everything)
    tables = dataset.tables("validation", ["user", *columns, "targets"])
    return load_data(dataset, train, validation_rows(tables, config.validation_users, config.seed), everything, rule)


def train_table(dataset: Dataset, columns: list[str], include_validation: bool) -> pa.Table:
    """Read the sequences to train on; `include_validation`: up to a user's last validation target."""
    if not include_validation:
        return dataset.table("train", columns)
    validation = dataset.table("validation", ["user", *columns, "targets"])
    return with_targets(dataset.table("train", ["user", *columns]), validation).select(columns)


def with_targets(train: pa.Table, validation: pa.Table) -> pa.Table:
    """Replace validation users in the train sequences by what is known of them and their targets.

    train : user, items, ....  validation : the same and targets; items are what comes before the targets.
    """
    whole = with_held_out(validation).drop_columns("targets")
    if "times" in whole.column_names:
        whole = whole.set_column(whole.schema.get_field_index("times"), "times", _with_held_out_times(validation))
    others = train.filter(pc.invert(pc.is_in(train["user"], value_set=validation["user"].combine_chunks())))
    return pa.concat_tables([others.select(whole.column_names), whole.cast(others.select(whole.column_names).schema)])


def _with_held_out_times(validation: pa.Table) -> pa.ChunkedArray:
    """Return the times with one more for each target: that of a moment after all others."""
    offsets = list_offsets(validation["targets"].combine_chunks())
    held_out = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.full(offsets[-1], HELD_OUT)))
    return with_held_out(pa.table({"items": validation["times"], "targets": held_out}))["items"]


def load_items(dataset: Dataset, include_validation: bool = False) -> tuple[Bags, torch.Tensor, torch.Tensor]:
    """Load each item's make-up, its events that are trained on (V,), and whether it is cold (V,): has none of them."""
    items, manifest = dataset.items(), dataset.manifest
    specs, counts = feature_specs(manifest.item_features), event_counts(dataset, items, include_validation)
    cold = cold_mask(counts, specs)
    return item_bags(feature_columns(items, specs, "feature"), manifest.item_rows, cold), counts, cold


def event_counts(dataset: Dataset, items: pa.Table, include_validation: bool) -> torch.Tensor:
    """Count each item's events (V,) that are trained on; `items` is the dataset's table of them."""
    counts = train_counts(items)
    if include_validation:
        for table in dataset.tables("validation", ["targets"]):
            counts += torch.bincount(to_targets(table).items.long(), minlength=len(counts))
    return counts


def validation_rows(tables: Iterable[pa.Table], limit: int | None, seed: int) -> pa.Table:
    """Choose the rows of the users to validate on: all, or the `limit` whose ids have the smallest hashes.

    No more than that is held while reading, and who is in the sample depends neither on the files nor on their order.
    """
    kept: list[pa.Table] = []
    for table in tables:
        kept.append(table)
        if limit is not None and sum(each.num_rows for each in kept) > limit:
            joined = pa.concat_tables(kept).combine_chunks()
            smallest = np.argpartition(hash64(as_array(joined["user"]), seed), limit)[:limit]
            kept = [joined.take(pa.array(smallest))]
    return pa.concat_tables(kept)


def columns_to_train(dataset: Dataset) -> list[str]:
    """List the columns of a sequence that a model learns from."""
    return ["items", *(f"profile_{feature.name}" for feature in dataset.manifest.profile_features)]

"""What a training reads: the train split alone, or with the validation targets at the end of its sequences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.models.artifact import load_model
from pipelines.training.data import columns_to_train, load_items, train_table, with_targets
from pipelines.training.train import train
from tests.pipelines.planted import configure

ITEMS = st.lists(st.integers(2, 9), max_size=5)


def split(rows: dict[int, list[int]], targets: dict[int, list[int]] | None = None) -> pa.Table:
    columns = {
        "user": pa.array(list(rows), pa.int64()),
        "items": pa.array(list(rows.values()), pa.list_(pa.int32())),
        "profile_group": pa.array([user % 3 for user in rows], pa.int32()),
    }
    if targets is not None:
        columns["targets"] = pa.array([targets[user] for user in rows], pa.list_(pa.int32()))
    return pa.table(columns)


@given(st.dictionaries(st.integers(0, 20), ITEMS), st.dictionaries(st.integers(0, 20), st.tuples(ITEMS, ITEMS)))
def test_each_user_is_there_once_and_ends_with_the_targets(
    train: dict[int, list[int]], held_out: dict[int, tuple[list[int], list[int]]]
) -> None:
    known = {user: items for user, (items, _) in held_out.items()}
    validation = split(known, {user: targets for user, (_, targets) in held_out.items()})
    joined = with_targets(split(train), validation)
    expected = train | {user: items + targets for user, (items, targets) in held_out.items()}
    assert dict(zip(joined["user"].to_pylist(), joined["items"].to_pylist(), strict=True)) == expected
    assert joined["profile_group"].to_pylist() == [user % 3 for user in joined["user"].to_pylist()]
    assert joined.schema == split(train).schema


@pytest.mark.ray
def test_counts_follow_what_is_trained_on(config: Config) -> None:
    dataset = Dataset.open(config.dataset_path)
    table = train_table(dataset, columns_to_train(dataset), include_validation=True)
    counted = Counter(item for items in table["items"].to_pylist() for item in items)
    _, counts, cold = load_items(dataset, include_validation=True)
    assert {item: count for item, count in enumerate(counts.tolist()) if count} == counted
    assert not cold[[item for item in counted if item >= 2]].any()
    before = train_table(dataset, columns_to_train(dataset), include_validation=False)
    assert sum(counted.values()) > sum(len(items) for items in before["items"].to_pylist())


@pytest.mark.ray
def test_a_training_on_train_and_validation_runs_all_epochs_and_is_not_validated(
    planted_home: Path, planted_log: Path
) -> None:
    outcome = train(configure(planted_home, planted_log, workers=1, epochs=2, patience=1, include_validation=True))
    assert outcome.metrics["epoch"] == 2
    assert not [name for name in outcome.metrics if name.startswith("validation/")]
    assert load_model(outcome.model).card.run_id == outcome.run_id

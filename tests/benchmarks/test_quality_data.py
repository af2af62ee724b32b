"""What takes part: data sets at hand, samples of users, and what peers may know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.export import export_splits
from benchmarks.peers.lists import counts_of, split_of
from benchmarks.quality import data
from benchmarks.quality.data import EVERYBODY, Sample, asked_users, prepared
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset


@pytest.fixture
def dataset(planted: Config) -> Dataset:
    return Dataset.open(planted.dataset_path)


def test_peers_get_histories_and_validation_targets_but_no_test_target(dataset: Dataset, tmp_path: Path) -> None:
    with np.load(export_splits(dataset, tmp_path / "arrays.npz", EVERYBODY)) as file:
        arrays = dict(file)
    for split in ("train", "validation", "test"):
        rows = dataset.table(split).sort_by("user")["items"].to_pylist()
        found = split_of(arrays, split)
        assert [each.tolist() for each in found.lists(np.arange(len(found)))] == rows
    assert {name for name in arrays if "target" in name} == {"validation_targets", "validation_target_offsets"}
    assert counts_of(arrays)[2:].tolist() == dataset.items()["train_count"].to_pylist()
    assert arrays["profile_sizes"].tolist() == (arrays["test_profile"].max(0) + 1).tolist()
    assert arrays["train_profile"].shape[1] == 2, "the user's number and the group"


def test_users_who_are_held_out_have_no_number(dataset: Dataset, tmp_path: Path) -> None:
    held_out = {**dataset.manifest.config, "split": {"protocol": "user_holdout"}}
    other = Dataset(dataset.path, replace(dataset.manifest, config=held_out))
    with np.load(export_splits(other, tmp_path / "arrays.npz", EVERYBODY)) as file:
        assert file["train_profile"].shape[1] == 1


def test_a_sample_is_the_first_users_of_each_split(dataset: Dataset, tmp_path: Path) -> None:
    few = Sample(train=5, validation=4, test=3)
    with np.load(export_splits(dataset, tmp_path / "arrays.npz", few)) as file:
        sizes = [len(file[f"{prefix}offsets"]) - 1 for prefix in ("", "validation_", "test_")]
    assert sizes == [5, 4, 3]
    histories, targets = asked_users(dataset, few)
    everybody, _ = asked_users(dataset, EVERYBODY)
    assert len(histories) == len(targets.offsets) - 1 == 3
    assert histories.items.tolist() == everybody.items[: len(histories.items)].tolist()


def test_a_data_set_whose_files_are_missing_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "REPOSITORY", tmp_path)
    monkeypatch.setattr(data, "conf_of", lambda name: Path(__file__).parents[2] / "conf" / f"{name}.yaml")
    line = prepared("tmall", tmp_path / "home")
    assert line == f"tmall: left out, {load_config(data.conf_of('tmall')).data.events.path} is not there"


def test_a_data_set_of_other_settings_is_made_anew(planted: Config, dataset: Dataset) -> None:
    assert data._opened(planted.dataset_path, planted) is not None
    other = planted.model_copy(update={"data": planted.data.model_copy(update={"min_item_events": 2})})
    assert data._opened(planted.dataset_path, other) is None
    assert data._opened(planted.dataset_path.with_name("none"), planted) is None


def test_the_training_benchmark_exports_what_its_peer_reads(dataset: Dataset, tmp_path: Path) -> None:
    import torch

    from benchmarks.dataset_loop import load
    from benchmarks.peers.export import export

    loaded = load(dataset)
    with np.load(export(loaded, tmp_path / "arrays.npz", torch.arange(3), with_users=True)) as file:
        arrays = dict(file)
    assert arrays["items"].tolist() == loaded.train.items.tolist()
    assert arrays["train_profile"].shape == (len(loaded.train), 2)
    assert len(arrays["profile_sizes"]) == 2
    assert arrays["evaluated"].tolist() == [0, 1, 2]

"""A trial's training without Ray: results, and going on from what is left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.training.data import TrainData, read_data
from pipelines.tuning.trial.training import EPOCH, FAILURE, LAST, QUALITY, REPORTS, Result, results_of
from tests.pipelines.planted import configure

TIMED = {"seconds", "train/samples_per_second", "train/wait_share"}


class Trained:
    """A trial over the planted dataset, begun as often as a test likes."""

    def __init__(self, config: Config, folder: Path, data: TrainData) -> None:
        self.config, self.folder, self.data = config, folder, data

    def begin(self, **values: Any) -> Any:
        trial = {"number": 1, "seed": 0, "values": values or {"model.interests": 2}, "checkpoint": str(self.folder)}
        return results_of(trial, self.config, Dataset.open(self.config.dataset_path), self.data, CPU, 0, 1)


CPU = torch.device("cpu")


@pytest.fixture
def trained(planted_home: Path, planted_log: Path, tmp_path: Path) -> Trained:
    config = configure(planted_home, planted_log, workers=1, epochs=3, patience=None)
    return Trained(config, tmp_path / "checkpoints", read_data(Dataset.open(config.dataset_path), config.train))


def untimed(results: list[Result]) -> list[dict[str, float]]:
    return [{k: v for k, v in report.items() if k not in TIMED} for result in results for report in result[REPORTS]]


@pytest.mark.ray
def test_each_validation_is_a_result_with_the_metric_and_the_epoch_that_tune_decides_by(trained: Trained) -> None:
    results = list(trained.begin())
    assert [result[EPOCH] for result in results] == [1, 2, 3]
    assert [(result[LAST], result["done"]) for result in results] == [(False, False), (False, False), (True, True)]
    metric = f"validation/{trained.config.train.metric}"
    assert [result[QUALITY] for result in results] == [report[metric] for r in results for report in r[REPORTS]]


@pytest.mark.ray
@pytest.mark.parametrize("after", [1, 2])
def test_a_trial_that_was_killed_goes_on_as_if_it_never_had_been(
    trained: Trained, planted_home: Path, planted_log: Path, tmp_path: Path, after: int
) -> None:
    whole = untimed(list(Trained(trained.config, tmp_path / "whole", trained.data).begin()))
    first = trained.begin()
    for _ in range(after):
        next(first)
    second = list(trained.begin())
    assert len(second[0][REPORTS]) == after, "what the checkpoint knows comes at once, for Tune to decide on the newest"
    assert untimed(second) == whole


@pytest.mark.ray
def test_a_trial_that_had_ended_says_so_again(trained: Trained) -> None:
    whole = untimed(list(trained.begin()))
    again = list(trained.begin())
    assert [result["done"] for result in again] == [True]
    assert untimed(again) == whole


@pytest.mark.ray
def test_a_trial_that_diverges_fails_with_its_reason_and_leaves_no_checkpoint(trained: Trained) -> None:
    results = list(trained.begin(**{"optim.learning_rate": 1e30, "optim.table_learning_rate": 1e30}))
    assert results[-1]["done"]
    assert "the training diverged: its" in results[-1][FAILURE]
    assert not list(trained.folder.glob("*/reports.json"))

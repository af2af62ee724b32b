"""`train.refit`: what is published was trained on the validation split too, for as many epochs as validated best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from pydantic import ValidationError

from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.evaluation.evaluate import evaluate
from pipelines.models.artifact import load_model
from pipelines.tracking.store import store_of
from pipelines.training.fit import refit_config
from pipelines.training.snapshot import KEPT
from pipelines.training.train import TrainOutcome, train
from pipelines.tuning.space import trial_config
from tests.pipelines.planted import configure
from tests.pipelines.training.test_train import killed_after_a_checkpoint, validation


@pytest.fixture(scope="module")
def refitted(
    planted_home: Path, planted_log: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, TrainOutcome]:
    config = _config(planted_home, planted_log, tmp_path_factory.mktemp("refitted"))
    return config, train(config)


def _config(planted_home: Path, planted_log: Path, home: Path, **train_settings: Any) -> Config:
    (home / "datasets").symlink_to(planted_home / "datasets")
    return configure(home, planted_log, refit=True, **train_settings)


def _weights(outcome: TrainOutcome) -> torch.Tensor:
    return load_model(outcome.model).retriever.item_vectors


@pytest.mark.ray
def test_it_equals_a_training_on_both_splits_and_tells_the_validation_before(
    refitted: tuple[Config, TrainOutcome],
) -> None:
    config, outcome = refitted
    epochs = round(outcome.metrics["epoch"])
    whole = train(refit_config(config, epochs))
    assert torch.equal(_weights(outcome), _weights(whole))
    assert load_model(outcome.model).card.on_validation
    assert load_model(whole.model).card.on_validation
    assert outcome.metrics["refit/epochs"] == epochs

    alone = train(config.model_copy(update={"train": config.train.model_copy(update={"refit": False})}))
    assert validation(outcome) == validation(alone)
    assert not torch.equal(_weights(outcome), _weights(alone))
    assert not load_model(alone.model).card.on_validation


@pytest.mark.ray
def test_its_loss_is_a_curve_of_its_own(refitted: tuple[Config, TrainOutcome]) -> None:
    config, outcome = refitted
    client = mlflow.MlflowClient(store_of(config))
    first, again = (client.get_metric_history(outcome.run_id, f"{group}/loss") for group in ("train", "refit"))
    assert len(first) == 3
    assert len({point.step for point in again}) == len(again) == outcome.metrics["refit/epochs"]
    assert max(point.step for point in again) >= outcome.metrics["step"], "it has the validation split's samples too"
    assert "Trained once more" in client.get_run(outcome.run_id).data.tags["mlflow.note.content"]


@pytest.mark.ray
@pytest.mark.timeout(900)  # two clusters and three trainings, also on a busy machine
def test_killed_in_it_the_same_command_ends_as_if_left_alone(
    planted_home: Path, planted_log: Path, refitted: tuple[Config, TrainOutcome], tmp_path: Path
) -> None:
    _, undisturbed = refitted
    config = _config(planted_home, planted_log, tmp_path)
    killed_after_a_checkpoint(config, Path("refit") / KEPT)
    outcome = train(config)
    assert validation(outcome) == validation(undisturbed)
    assert torch.equal(_weights(outcome), _weights(undisturbed))


@pytest.mark.ray
def test_the_validation_split_does_not_measure_it(refitted: tuple[Config, TrainOutcome]) -> None:
    with pytest.raises(UserError, match=r"was trained on the validation split too.*evaluate the test split"):
        evaluate(refitted[0], split="validation")


def test_trials_are_compared_without_it(planted_home: Path, planted_log: Path) -> None:
    base = configure(planted_home, planted_log, refit=True)
    assert not trial_config(base, {"model.interests": 2}).train.refit


@pytest.mark.parametrize("other", [{"include_validation": True}, {"input": "stream"}])
def test_what_it_cannot_be_with_is_said(planted_home: Path, planted_log: Path, other: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"train\.refit=true: must be false with"):
        configure(planted_home, planted_log, refit=True, **other)

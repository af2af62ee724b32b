"""Training through Ray Train: what it stores, that it repeats itself, and that a killed run goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import yaml

from mind_core.evaluation import evaluate
from pipelines.arrays import feature_specs, to_sequences, to_targets
from pipelines.artifact import load_model
from pipelines.checkpoints import EarlyStopping
from pipelines.config import Config
from pipelines.dataset import Dataset
from pipelines.errors import UserError
from pipelines.run_store import store_of
from pipelines.runs import current_run, read_state
from pipelines.train import TrainOutcome, train
from pipelines.train_worker import EpochPlan, load_data
from tests.pipelines.planted import configure


@pytest.fixture(scope="module")
def trained(planted_home: Path, planted_log: Path) -> Iterator[tuple[Config, TrainOutcome]]:
    config = configure(planted_home, planted_log)
    return config, train(config)


@pytest.mark.ray
def test_the_artifact_reproduces_the_validation_of_training(trained: tuple[Config, TrainOutcome]) -> None:
    config, outcome = trained
    model = load_model(outcome.model)
    table = Dataset.open(config.dataset_path).table("validation")
    sequences = to_sequences(table, feature_specs(model.card.profile_features))
    found = evaluate(
        model.retriever, sequences, to_targets(table), torch.arange(len(sequences)), [10, 20], exclude_seen=False
    )
    for name, values in found.metrics.items():
        assert float(values.mean()) == pytest.approx(outcome.metrics[f"validation/{name}"], abs=1e-12), name


@pytest.mark.ray
def test_training_is_one_run_with_its_curves_lineage_and_model(trained: tuple[Config, TrainOutcome]) -> None:
    config, outcome = trained
    client = mlflow.MlflowClient(store_of(config))
    experiment = client.get_experiment_by_name("planted")
    runs = client.search_runs([experiment.experiment_id], filter_string="tags.`mind.stage` = 'train'")
    assert [run.info.run_id for run in runs] == [outcome.run_id]
    run = runs[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["model.interests"] == "3"
    assert run.data.tags["mind.dataset"] == Dataset.open(config.dataset_path).manifest.fingerprint
    recall = client.get_metric_history(outcome.run_id, "validation/recall_at_20")
    assert [point.value for point in recall], "one point a validation"
    assert len({point.step for point in recall}) == len(recall) == 3
    assert max(point.value for point in recall) == outcome.metrics["validation/recall@20"], "the best is kept"


@pytest.mark.ray
def test_the_mlflow_model_answers_as_the_artifact_does(trained: tuple[Config, TrainOutcome]) -> None:
    config, outcome = trained
    model = load_model(outcome.model)
    tags = mlflow.MlflowClient(store_of(config)).get_run(outcome.run_id).data.tags
    history = model.item_ids[3:9]
    mlflow.set_tracking_uri(store_of(config))
    try:
        served = mlflow.pyfunc.load_model(tags["mind.model_uri"])
    finally:
        mlflow.set_tracking_uri(None)
    import pandas as pd
    import pyarrow as pa

    answer = served.predict(pd.DataFrame({"history": [history.to_pylist()]}), params={"k": 7})
    expected = model.recommend(model.encode(pa.array([history.to_pylist()])), 7, exclude_seen=False)
    assert list(answer["items"][0]) == expected["id"].to_pylist()
    assert list(answer["scores"][0]) == pytest.approx(expected["score"].to_pylist(), abs=0)


@pytest.mark.ray
def test_the_same_seed_and_workers_give_the_same_metrics_to_the_last_digit(
    trained: tuple[Config, TrainOutcome],
) -> None:
    config, first = trained
    second = train(config)
    assert second.model != first.model, "a finished run is not overwritten"
    timing = {"train/samples_per_second"}
    assert {k: v for k, v in second.metrics.items() if k not in timing} == {
        k: v for k, v in first.metrics.items() if k not in timing
    }


@pytest.mark.ray
@pytest.mark.timeout(900)  # two clusters and three trainings, also on a busy machine
def test_a_killed_run_goes_on_to_the_result_it_would_have_had(
    planted_home: Path, planted_log: Path, trained: tuple[Config, TrainOutcome], tmp_path: Path
) -> None:
    # given a driver that is killed after its first checkpoint, in a home of its own over the same dataset
    config = configure(tmp_path, planted_log)
    (tmp_path / "datasets").symlink_to(planted_home / "datasets")
    conf = tmp_path / "conf.yaml"
    conf.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    driver = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "train", str(conf)], stdout=subprocess.DEVNULL, start_new_session=True
    )
    name = current_run(config, Dataset.open(config.dataset_path)).name
    wait_for(lambda: list((tmp_path / "runs" / name).glob("checkpoint_*")), driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not read_state(config, name).finished
    run_id = read_state(config, name).mlflow_run_id

    # when the same command is given again
    outcome = train(config)

    # then it is the same MLflow run, each step stands there once, and the result is that of a run left alone
    _, undisturbed = trained
    assert outcome.run_id == run_id
    history = mlflow.MlflowClient(store_of(config)).get_metric_history(outcome.run_id, "validation/recall_at_20")
    assert len({point.step for point in history}) == len(history) == 3
    validation = {k: v for k, v in undisturbed.metrics.items() if k.startswith("validation/")}
    assert {k: v for k, v in outcome.metrics.items() if k.startswith("validation/")} == validation


def wait_for(condition: Any, process: subprocess.Popen[bytes], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.02)


@pytest.mark.ray
def test_popularity_is_trained_by_the_same_command(planted_home: Path, planted_log: Path) -> None:
    config = configure(planted_home, planted_log)
    config = config.model_copy(
        update={"preset": "popularity", "model": type(config.model)(encoder="popularity", interests=1)}
    )
    outcome = train(config)
    counts = load_model(outcome.model).items["train_count"].to_numpy()
    scores = load_model(outcome.model).retriever.item_vectors[2:, 0]
    assert scores.argsort(descending=True, stable=True).tolist() == list((-counts).argsort(kind="stable"))


def test_without_a_dataset_training_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mind preprocess"):
        train(configure(tmp_path, tmp_path))


def test_early_stopping_counts_validations_without_a_better_metric() -> None:
    stopping = EarlyStopping(patience=2)
    decisions = []
    for value in (0.1, 0.3, 0.2, 0.3):
        stopping.update(value)
        decisions.append(stopping.should_stop())
    assert decisions == [False, False, False, True]
    assert stopping.best == 0.3


@pytest.mark.ray
def test_in_batch_labels_follow_the_law_by_which_targets_are_drawn(planted_home: Path, planted_log: Path) -> None:
    config = configure(planted_home, planted_log, targets_per_user=500)
    dataset = Dataset.open(config.dataset_path)
    data = load_data(dataset, dataset.table("train"), dataset.table("validation"))
    plan = EpochPlan(config, data.train)
    drawn = torch.bincount(data.train.items[plan.samples(0).positions].long(), minlength=len(data.counts)).double()
    expected = plan.label_counts(data)
    assert torch.allclose(drawn / drawn.sum(), expected / expected.sum(), atol=1e-3)

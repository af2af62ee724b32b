"""Training through Ray Train: what it stores, that it repeats itself, and that a killed run goes on where it was."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mind_core.evaluation import evaluate
from mind_core.inference import MINDRetriever
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import feature_specs, to_sequences, to_targets
from pipelines.errors import DivergedError, UserError
from pipelines.models.artifact import load_model, save_model
from pipelines.models.runs import current_run, model_folder, read_state
from pipelines.tracking.store import store_of
from pipelines.training.checkpoints import EarlyStopping
from pipelines.training.data import load_data, validation_rows
from pipelines.training.memory_input import MemoryInput
from pipelines.training.snapshot import KEPT, RECORD
from pipelines.training.train import TrainOutcome, train
from pipelines.training.worker import MOST_HALVINGS
from tests.pipelines.planted import configure, save_untrained

TOO_FAST = 20.0  # a rate at which weights overflow; a few halvings later they do not


@pytest.fixture(scope="module")
def trained(
    planted_home: Path, planted_log: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, TrainOutcome]:
    """A training in a home of its own, whose only run it is, whatever ran before."""
    home = tmp_path_factory.mktemp("trained")
    shutil.copytree(planted_home / "datasets", home / "datasets")
    config = configure(home, planted_log)
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
@pytest.mark.parametrize("rate", ["learning_rate", "table_learning_rate"])
def test_a_training_that_diverges_stops_in_one_line_and_leaves_no_model(
    planted_home: Path, planted_log: Path, rate: str
) -> None:
    config = configure(planted_home, planted_log, epochs=50, seed=101)
    config = config.model_copy(update={"optim": replace(config.optim, **{rate: 1e30})})
    dataset = Dataset.open(config.dataset_path)
    state = current_run(config, dataset)
    with pytest.raises(
        DivergedError,
        match=r"diverged: its (loss is|weights are) .* step \d+.*; the largest gradient of step .*; lower optim",
    ) as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert not model_folder(config, state.name).exists()
    assert not current_run(config, dataset).finished
    run_id = read_state(config, state.name).mlflow_run_id
    assert run_id is not None
    run = mlflow.MlflowClient(store_of(config)).get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.outputs.model_outputs == []
    assert "diverged" in run.data.tags["mind.failure"]


@pytest.mark.ray
def test_weights_that_are_not_finite_are_never_published(planted_home: Path, planted_log: Path) -> None:
    config = configure(planted_home, planted_log)
    good = load_model(save_untrained(config, "planted-good"))
    assert isinstance(good.retriever, MINDRetriever)
    dataset, model = Dataset.open(config.dataset_path), good.retriever.model
    for spoilt in (float("nan"), float("inf")):
        with torch.no_grad():
            next(model.encoder.parameters()).view(-1)[0] = spoilt
        card = replace(good.card, name="planted-spoilt")
        with pytest.raises(DivergedError, match="planted-spoilt: its weights are not finite"):
            save_model(config.place("models", card.name), card, model, good.retriever, dataset)
    assert not config.place("models", "planted-spoilt").exists()


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
    assert untimed(second) == untimed(first)


@pytest.mark.ray
def test_a_sharded_item_table_trains_to_the_same_digits_and_the_profile_is_kept(
    planted_home: Path, planted_log: Path, trained: tuple[Config, TrainOutcome]
) -> None:
    config = configure(planted_home, planted_log, shard_items=True, profile=True)
    outcome = train(config)
    assert untimed(outcome) == untimed(trained[1])
    vectors = [load_model(each.model).retriever.item_vectors for each in (outcome, trained[1])]
    assert torch.equal(*vectors)
    client = mlflow.MlflowClient(store_of(config))
    files = {file.path for file in client.list_artifacts(outcome.run_id)}
    assert {"profile.json", "profile.png"} <= files
    metrics = client.get_run(outcome.run_id).data.metrics
    assert metrics["profile/forward_ms"] > 0
    assert metrics["startup/total"] > metrics["startup/workers"] > 0


def untimed(outcome: TrainOutcome) -> dict[str, float]:
    return {k: v for k, v in outcome.metrics.items() if k not in ("train/samples_per_second", "train/wait_share")}


@pytest.fixture
def parted_home(planted_home: Path, tmp_path: Path) -> Path:
    """A home folder in which the train split is cut into five parts of 40 users."""
    home = tmp_path / "parted"
    shutil.copytree(planted_home / "datasets", home / "datasets")
    folder = home / "datasets" / "planted" / "sequences" / "train"
    (whole,) = folder.iterdir()
    table = pq.read_table(whole)
    for part in range(5):
        pq.write_table(table.slice(40 * part, 40), folder / f"part-{part:05d}.parquet")
    return home


@pytest.mark.ray
def test_a_streamed_training_learns_as_one_in_memory_does_and_repeats_itself(
    parted_home: Path, planted_log: Path, trained: tuple[Config, TrainOutcome]
) -> None:
    config = configure(parted_home, planted_log, input="stream", shuffle_events=2500)
    first, second = train(config), train(config)
    assert untimed(first) == untimed(second)
    _, held = trained
    assert first.metrics["step"] == held.metrics["step"], "the best validation is that of the same epoch"
    for name in ("train/loss", "validation/recall@20"):
        assert first.metrics[name] == pytest.approx(held.metrics[name], rel=0.1), name
        assert first.metrics[name] != held.metrics[name], "the order is another"
    assert 0 <= first.metrics["train/wait_share"] <= 1


@pytest.mark.ray
@pytest.mark.timeout(900)  # two clusters and three trainings, also on a busy machine
def test_a_killed_run_goes_on_to_the_result_it_would_have_had(
    planted_home: Path, planted_log: Path, trained: tuple[Config, TrainOutcome], tmp_path: Path
) -> None:
    # given a driver that is killed after its first checkpoint, in a home of its own over the same dataset
    config = configure(tmp_path, planted_log)
    (tmp_path / "datasets").symlink_to(planted_home / "datasets")
    name = killed_after_a_checkpoint(config)
    run_id = read_state(config, name).mlflow_run_id
    (tmp_path / "runs" / name / RECORD).write_text("")  # as if Ray Train had been writing it just then

    # when the same command is given again
    outcome = train(config)

    # then it is the same MLflow run, each step stands there once, and the result is that of a run left alone
    _, undisturbed = trained
    assert outcome.run_id == run_id
    history = mlflow.MlflowClient(store_of(config)).get_metric_history(outcome.run_id, "validation/recall_at_20")
    assert len({point.step for point in history}) == len(history) == 3
    assert validation(outcome) == validation(undisturbed)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_within_an_epoch_of_its_stream(
    parted_home: Path, planted_log: Path, tmp_path: Path
) -> None:
    # 11 steps an epoch, a checkpoint every 4
    config = configure(parted_home, planted_log, input="stream", shuffle_events=1500, validate_every_steps=4)
    undisturbed = train(config)
    killed = configure(tmp_path, planted_log, input="stream", shuffle_events=1500, validate_every_steps=4)
    (tmp_path / "datasets").symlink_to(parted_home / "datasets")
    killed_after_a_checkpoint(killed)
    assert validation(train(killed)) == validation(undisturbed)


def validation(outcome: TrainOutcome) -> dict[str, float]:
    return {k: v for k, v in outcome.metrics.items() if k.startswith("validation/")}


def killed_after_a_checkpoint(config: Config, record: str | Path = KEPT) -> str:
    """Start a training in a process of its own and kill it once its folder has `record`; the run's name."""
    conf = config.home_path / "conf.yaml"
    conf.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    driver = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "train", str(conf)], stdout=subprocess.DEVNULL, start_new_session=True
    )
    name = current_run(config, Dataset.open(config.dataset_path)).name
    wait_for(lambda: (config.home_path / "runs" / name / record).is_file(), driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not read_state(config, name).finished
    return name


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
    assert data.train is not None
    held = MemoryInput(config.train, data.train)
    positions = held.samples(0)[torch.arange(held.size)].positions
    drawn = torch.bincount(data.train.items[positions].long(), minlength=len(data.counts)).double()
    expected = held.label_counts(len(data.counts))
    assert torch.allclose(drawn / drawn.sum(), expected / expected.sum(), atol=1e-3)


@given(st.integers(1, 40), st.lists(st.integers(0, 12), min_size=1, max_size=8), st.integers(0, 3))
def test_validation_users_are_as_many_as_asked_for_and_the_same_in_any_order_of_reading(
    limit: int, sizes: list[int], seed: int
) -> None:
    users = pa.table({"user": pa.array(range(sum(sizes)), pa.int64())})
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    blocks = [users.slice(end - size, size) for end, size in zip(ends, sizes, strict=True)]
    chosen = [
        sorted(validation_rows(tables, limit, seed)["user"].to_pylist()) for tables in ([users], blocks, blocks[::-1])
    ]
    assert len(chosen[0]) == min(limit, sum(sizes))
    assert chosen[0] == chosen[1] == chosen[2]
    assert validation_rows(blocks, None, seed)["user"].to_pylist() == users["user"].to_pylist()


def test_another_seed_has_other_validation_users() -> None:
    users = pa.table({"user": pa.array(range(1000), pa.int64())})
    samples = [set(validation_rows([users], 100, seed)["user"].to_pylist()) for seed in (0, 1)]
    assert len(samples[0] & samples[1]) < 50


@pytest.mark.ray
def test_a_training_that_diverges_goes_on_at_half_the_rates_where_it_is_told_to(
    planted_home: Path, planted_log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = configure(planted_home, planted_log, epochs=1, seed=103, on_divergence="rollback")
    config = config.model_copy(update={"optim": replace(config.optim, learning_rate=TOO_FAST)})
    outcome = train(config)
    said = capfd.readouterr().err
    assert "the training diverged" in said
    assert "back to step 0, at 0.5 of the rates" in said
    assert math.isfinite(outcome.metrics["train/loss"])
    load_model(outcome.model)


@pytest.mark.ray
def test_a_training_that_goes_on_diverging_ends_after_some_halvings(
    planted_home: Path, planted_log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = configure(planted_home, planted_log, epochs=2, seed=104, on_divergence="rollback")
    config = config.model_copy(update={"optim": replace(config.optim, learning_rate=1e30)})
    with pytest.raises(DivergedError):
        train(config)
    assert capfd.readouterr().err.count("back to step 0") == MOST_HALVINGS

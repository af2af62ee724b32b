"""The weights of a model, by Ray Train: the best checkpoint of a training that is validated, and the refit after it.

<run folder>/           checkpoints of the training that is validated
<run folder>/refit/     of the one on the validation split too, with `train.refit`
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")  # a report waits for this poll; 2 s stall short runs

import ray
import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig
from ray.train.torch import TorchConfig

from mind_core.model import MIND
from pipelines.cluster.address import cluster_address
from pipelines.cluster.environment import WORKER_ENVIRONMENT
from pipelines.cluster.nodes import free_resources
from pipelines.cluster.session import interruptible, ray_session
from pipelines.cluster.template import OF_TRAINING
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import DivergedError
from pipelines.models.runs import RunState, run_folder
from pipelines.progress import console, output
from pipelines.storage.home_files import renew, storage
from pipelines.storage.tables import write_text
from pipelines.tracking.run import Tracker
from pipelines.training.callback import DIVERGED, ReportCallback, progress_board
from pipelines.training.checkpoints import load_weights
from pipelines.training.data import build_model
from pipelines.training.memory_input import choose_input
from pipelines.training.precision import slow_precision
from pipelines.training.ray_trainer import Trainer
from pipelines.training.scaling import scaling_of
from pipelines.training.snapshot import mend_record
from pipelines.training.startup import Timeline
from pipelines.training.step_profile import phases, profile_columns, profile_figure, profile_table
from pipelines.training.worker import train_loop
from pipelines.words import counted

OF_THE_RUN = ("profile/", "startup/")  # metrics that say nothing of the best model
Reports = list[dict[str, float]]


@dataclass(frozen=True)
class Fitted:
    """What the workers made.

    model : to publish.  judged : the best by validation, which is `model` unless that is a refit; untrained weights
    are in neither.  metrics : of the checkpoint of `judged`, and ``refit/epochs`` if there is a refit.
    validated : the metric of every validation; none where the run was gone on with.
    """

    model: MIND
    judged: MIND
    metrics: dict[str, float]
    validated: list[float]


@dataclass(frozen=True)
class _Training:
    """One run of Ray Train: its folder, and the group of its metrics in MLflow."""

    config: Config
    folder: Path
    group: Literal["train", "refit"]

    @property
    def score(self) -> str | None:
        """What its best checkpoint is chosen by; None: the last is."""
        train = self.config.train
        return None if train.include_validation else f"validation/{train.metric}"


def fit(config: Config, dataset: Dataset, state: RunState, tracker: Tracker, timeline: Timeline) -> Fitted:
    """Train on the workers; with `train.refit` once more, for as many epochs as validated best.

    Raises
    ------
    DivergedError
        If a loss or weights did not stay finite.
    """
    folder = run_folder(config, state.name)
    first = _Training(config, folder, "train")
    with ray_session(config.ray, workers=config.train.workers, home=config.home_path, preload=OF_TRAINING):
        judged, metrics, reports = _run(first, dataset, state, tracker, timeline)
        model = judged
        if config.train.refit:
            epochs = max(1, round(metrics["epoch"]))
            console.print(f"Once more, on the validation split too: {counted(epochs, 'epoch')}")
            again = _Training(refit_config(config, epochs), folder / "refit", "refit")
            model, _, _ = _run(again, dataset, state, tracker, timeline)
            metrics["refit/epochs"] = float(epochs)
    # an earlier start of this run has validated before: what is here does not begin at the beginning
    resumed = state.mlflow_run_id is not None
    return Fitted(model, judged, metrics, [] if resumed else _validated(reports, f"validation/{config.train.metric}"))


def refit_config(config: Config, epochs: int) -> Config:
    """Make the settings of a training on the validation split too, which nothing ends before its last epoch."""
    change = {"include_validation": True, "refit": False, "epochs": epochs}
    return config.model_copy(update={"train": config.train.model_copy(update=change)})


def _run(
    training: _Training, dataset: Dataset, state: RunState, tracker: Tracker, timeline: Timeline
) -> tuple[MIND, dict[str, float], Reports]:
    """Run the workers; the model of the best checkpoint, its metrics and all reports."""
    config, folder, score = training.config, training.folder, training.score
    with tempfile.TemporaryDirectory() as scratch:
        scaling = scaling_of(config, free_resources())
        if (warning := slow_precision(config.train, scaling.use_gpu)) is not None:
            console.print(warning)
        board = Path(scratch) / "reports.jsonl"
        given = _input(config, dataset, folder)
        environment = {} if cluster_address(config.ray) is None else {"env_vars": WORKER_ENVIRONMENT}
        mend_record(folder)
        timeline.mark("ray")
        logged_until = tracker.last_step(f"{training.group}/loss")
        labels = (state.name, config.preset)
        reporter = ReportCallback(
            tracker, board, logged_until, config.train.metric, labels, folder, group=training.group
        )
        trainer = Trainer(
            train_loop,
            train_loop_config={
                "config": config,
                "dataset": str(dataset.path),
                "threads": scaling.threads,
                "input": given,
                "timeline": timeline,
            },
            torch_config=TorchConfig(backend="nccl" if scaling.use_gpu else "gloo"),
            scaling_config=scaling.to_ray(config, given),
            run_config=RunConfig(  # type: ignore[call-arg]  # typed as the class of Train V1, but V2's at run time
                name=folder.name,
                **storage(folder.parent),
                callbacks=[reporter],  # type: ignore[list-item]
                failure_config=FailureConfig(max_failures=config.train.max_failures),
                worker_runtime_env=environment,
                checkpoint_config=ray.train.CheckpointConfig(
                    num_to_keep=1,  # the best; Ray keeps the newest beside it, to resume from
                    checkpoint_score_attribute=score,
                    checkpoint_score_order="max",
                ),
            ),
        )
        with progress_board(board, config.train.metric), interruptible():
            result = trainer.fit()
        reports = [json.loads(line) for line in board.read_text("utf-8").splitlines()]
    if reports and DIVERGED in reports[-1]:
        raise DivergedError(f"{state.name}: {reports[-1][DIVERGED]}")
    if config.train.profile:
        _record_profile(tracker, reports)
    assert result.best_checkpoints, "a run ends with a checkpoint"
    checkpoint, metrics = max(result.best_checkpoints, key=lambda pair: pair[1][score or "step"])
    model = build_model(config.model, dataset, config.train.seed)
    with checkpoint.as_directory() as saved:
        load_weights(Path(saved), model)
    wanted = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return model, {name: float(value) for name, value in wanted.items() if not name.startswith(OF_THE_RUN)}, reports


def _validated(reports: Sequence[Mapping[str, float]], metric: str) -> list[float]:
    """Return the metric of each validation by its step: a worker's restart repeats some."""
    by_step = {report["step"]: report[metric] for report in reports if metric in report}
    return [by_step[step] for step in sorted(by_step)]


def _record_profile(tracker: Tracker, reports: Sequence[Mapping[str, float]]) -> None:
    """Print the last profile that was reported, and put it beside the run's metrics as a table and a plot."""
    if found := next((profile for report in reversed(reports) if (profile := phases(report))), None):
        output.print(profile_table(found))
        tracker.log_table(profile_columns(found), "profile.json")
        tracker.log_figure(profile_figure(found), "profile.png")


def _input(config: Config, dataset: Dataset, folder: Path) -> str:
    """Choose how the workers hold the train split; a run keeps what it began with, on whatever machine it goes on."""
    chosen = renew(folder / "input")
    if not chosen.is_file():
        manifest = dataset.manifest
        memory = min(node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"])
        features, traits = len(manifest.profile_features), config.model.uses_traits
        timed = config.train.uses_times(manifest.config["split"]["protocol"])
        kind = choose_input(config.train, manifest.splits["train"], features, memory, traits=traits, timed=timed)
        chosen.parent.mkdir(parents=True, exist_ok=True)
        write_text(kind, chosen)
        if kind != config.train.input and kind == "stream":
            console.print("The train split is streamed: it does not fit the workers' memory (docs/design.md)")
    return chosen.read_text("utf-8")

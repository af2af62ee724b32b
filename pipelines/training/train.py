"""`mind train`: dataset -> Ray Train -> best checkpoint -> model artifact, recorded in one MLflow run.

The same command goes on with its own run after any interruption (pipelines.models.runs); a finished run is never
redone.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")  # a report waits for this poll; 2 s stall short runs

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import FailureConfig, RunConfig
from ray.train.torch import TorchConfig
from rich.table import Table

from mind_core.inference import MINDRetriever, PopularityRetriever, Retriever
from mind_core.model import MIND
from pipelines.cluster.address import cluster_address
from pipelines.cluster.environment import WORKER_ENVIRONMENT
from pipelines.cluster.nodes import free_resources
from pipelines.cluster.session import interruptible, ray_session
from pipelines.cluster.template import OF_TRAINING
from pipelines.config.home_location import shown
from pipelines.config.load import resolved
from pipelines.config.schema import Config
from pipelines.config.titles import run_title
from pipelines.dataset.dataset import Dataset, described_data
from pipelines.errors import DivergedError
from pipelines.models.artifact import FORMAT_VERSION, MARK, ModelCard, load_model, save_model
from pipelines.models.card_text import card_text
from pipelines.models.runs import RunState, claimed_run, model_folder, run_folder, write_state
from pipelines.progress import console, output
from pipelines.storage.home_files import renew, storage
from pipelines.storage.publish import require_publishable
from pipelines.storage.tables import write_text
from pipelines.tracking.notes import best_validation, note
from pipelines.tracking.run import Tracker, open_run
from pipelines.tracking.versions import versions
from pipelines.training.callback import DIVERGED, ReportCallback, progress_board
from pipelines.training.checkpoints import load_weights
from pipelines.training.data import TrainData, build_model, load_data, require_room_to_train, validation_rows
from pipelines.training.doubts import SAMPLED_USERS, doubts
from pipelines.training.loop import validation_metrics
from pipelines.training.memory_input import choose_input
from pipelines.training.precision import slow_precision
from pipelines.training.ray_trainer import Trainer
from pipelines.training.scaling import scaling_of
from pipelines.training.snapshot import mend_record
from pipelines.training.startup import Timeline
from pipelines.training.step_profile import phases, profile_columns, profile_figure, profile_table
from pipelines.training.worker import train_loop

METRICS = ("hit_rate", "recall", "ndcg", "mrr")
OF_THE_RUN = ("profile/", "startup/")  # metrics that say nothing of the best model
SERVING = Path(__file__).parents[1] / "models" / "serving.py"


@dataclass(frozen=True)
class TrainOutcome:
    """What a training made.

    model : the artifact's folder.  run_id : of the MLflow run.  metrics : of the best validation.
    doubts : what looks wrong, a line each.
    """

    model: Path
    run_id: str
    metrics: dict[str, float]
    doubts: Sequence[str] = ()


def train(config: Config, timeline: Timeline | None = None) -> TrainOutcome:
    """Train a model on the dataset of `config`.

    Parameters
    ----------
    timeline : of a start that has begun before.

    Raises
    ------
    UserError
        Without a dataset, without validation users, with more workers than the cluster has CPUs, or while another
        process trains the same run.
    DivergedError
        If the loss or the weights do not stay finite: nothing is published, the MLflow run has failed.
    """
    started = time.perf_counter()
    timeline = timeline or Timeline()
    timeline.mark("imports")
    dataset = Dataset.open(config.dataset_path)
    check_data(config, dataset)
    with claimed_run(config, dataset) as state:
        require_publishable(model_folder(config, state.name), MARK)
        outcome = _train(config, dataset, state, timeline)
    _print_summary(config, outcome, time.perf_counter() - started)
    return outcome


def _train(config: Config, dataset: Dataset, state: RunState, timeline: Timeline) -> TrainOutcome:
    """Train and publish a new run, or go on with it."""
    resumed = state.mlflow_run_id is not None
    with open_run(config, "train", run_title(config), run_id=state.mlflow_run_id) as tracker:
        write_state(config, replace(state, mlflow_run_id=tracker.run_id))
        if resumed:
            console.print(f"Going on with the interrupted run {state.name}")
        manifest = dataset.manifest
        source = manifest.sources["events"][0]["path"]
        tracker.log_dataset(manifest.name, manifest.fingerprint, source, "training", _counts(dataset))
        what = f"Training of {state.name}: {run_title(config)}."
        tracker.describe(note(what, described_data(manifest)))
        validated: list[float] = []
        if config.model.encoder == "popularity":
            model, metrics = None, _popularity_metrics(config, dataset)
            tracker.log_metrics(metrics, 0)
        else:
            timeline.mark("tracking")
            model, metrics, validated = _fit(config, dataset, state, tracker, timeline)
        data = _data(config, dataset)
        if model is None:
            retriever: Retriever = PopularityRetriever(data.counts, config.model.max_history)
        else:
            retriever = MINDRetriever.of(model, data.bags)
        lines = [] if model is None else _doubts(config, data, retriever, validated)
        folder = _publish(config, dataset, state, tracker, model, retriever, metrics, lines)
        tracker.log_tags({"mind.doubts": "\n".join(lines)} if lines else {})
        tracker.log_model_metrics(
            best_validation(metrics), int(metrics.get("step", 0)), (manifest.name, manifest.fingerprint)
        )
        tracker.describe(note(what, described_data(manifest), [*_found(config, metrics), *lines], "mind evaluate CONF"))
    write_state(config, replace(state, mlflow_run_id=tracker.run_id, finished=True))
    return TrainOutcome(folder, tracker.run_id, metrics, lines)


def _found(config: Config, metrics: Mapping[str, float]) -> list[str]:
    """Say how good the best checkpoint is."""
    metric = config.train.metric
    if f"validation/{metric}" not in metrics:
        return ["Trained on the validation split too, so not validated."]
    when = f" at step {metrics['step']:,.0f}, epoch {metrics['epoch']:.1f}" if "epoch" in metrics else ""
    return [f"Best validation: {metric} {metrics[f'validation/{metric}']:.4f}{when}."]


def check_data(config: Config, dataset: Dataset) -> None:
    """Refuse a dataset that nothing can be learned from, and a model that no memory here could hold.

    Raises
    ------
    UserError
    """
    dataset.require_learnable()
    require_room_to_train(config, dataset)


def _counts(dataset: Dataset) -> dict[str, int]:
    manifest = dataset.manifest
    return {"users": manifest.users, "items": manifest.items, "events": manifest.events}


def _fit(
    config: Config, dataset: Dataset, state: RunState, tracker: Tracker, timeline: Timeline
) -> tuple[MIND, dict[str, float], list[float]]:
    """Run the workers; the model of the best checkpoint, its metrics and the metric of every validation."""
    all_of_it = config.train.include_validation
    with (
        ray_session(config.ray, workers=config.train.workers, home=config.home_path, preload=OF_TRAINING),
        tempfile.TemporaryDirectory() as scratch,
    ):
        scaling = scaling_of(config, free_resources())
        if (warning := slow_precision(config.train, scaling.use_gpu)) is not None:
            console.print(warning)
        board = Path(scratch) / "reports.jsonl"
        folder = run_folder(config, state.name)
        given = _input(config, dataset, folder)
        environment = {} if cluster_address(config.ray) is None else {"env_vars": WORKER_ENVIRONMENT}
        mend_record(folder)
        timeline.mark("ray")
        logged_until = tracker.last_step("train/loss")
        labels = (state.name, config.preset)
        reporter = ReportCallback(tracker, board, logged_until, config.train.metric, labels, folder)
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
                    checkpoint_score_attribute=None if all_of_it else f"validation/{config.train.metric}",
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
    checkpoint, metrics = max(
        result.best_checkpoints, key=lambda pair: pair[1]["step" if all_of_it else f"validation/{config.train.metric}"]
    )
    model = build_model(config.model, dataset, config.train.seed)
    with checkpoint.as_directory() as saved:
        load_weights(Path(saved), model)
    wanted = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    best = {name: float(value) for name, value in wanted.items() if not name.startswith(OF_THE_RUN)}
    # an earlier start of this run has validated before: what is here does not begin at the beginning
    resumed = state.mlflow_run_id is not None
    return model, best, [] if resumed else _validated(reports, f"validation/{config.train.metric}")


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
        write_text(kind, chosen)
        if kind != config.train.input and kind == "stream":
            console.print("The train split is streamed: it does not fit the workers' memory (docs/design.md)")
    return chosen.read_text("utf-8")


def _data(config: Config, dataset: Dataset) -> TrainData:
    """Read the items, and the validation users that a model is doubted on."""
    rows = validation_rows(dataset.tables("validation"), SAMPLED_USERS, config.train.seed)
    return load_data(dataset, None, rows, config.train.include_validation)


def _doubts(config: Config, data: TrainData, retriever: Retriever, validated: Sequence[float]) -> list[str]:
    """Doubt the model by what it does on some of the validation users; one that was trained on these cannot be."""
    if config.train.include_validation:
        return []
    exclude_seen, interests = config.evaluate.seen == "filter", config.model.interests
    return doubts(retriever, data, validated, config.train.metric, interests=interests, exclude_seen=exclude_seen)


def _popularity_metrics(config: Config, dataset: Dataset) -> dict[str, float]:
    validation = dataset.tables("validation")
    data = load_data(dataset, None, validation_rows(validation, config.train.validation_users, config.train.seed))
    retriever = PopularityRetriever(data.counts, config.model.max_history)
    users = torch.arange(len(data.validation))
    found = validation_metrics(retriever, data, users, config.metric_cutoffs, config.evaluate.seen == "filter")
    return {f"validation/{name}": value for name, value in found.items()}


def _publish(
    config: Config,
    dataset: Dataset,
    state: RunState,
    tracker: Tracker,
    model: MIND | None,
    retriever: Retriever,
    metrics: dict[str, float],
    doubts: Sequence[str],
) -> Path:
    """Write the artifact and log it as an MLflow model, with a card for people."""
    manifest = dataset.manifest
    card = ModelCard(
        format_version=FORMAT_VERSION,
        name=state.name,
        preset=config.preset,
        model=resolved(config)["model"],
        items=manifest.item_rows,
        item_features=manifest.item_features,
        profile_features=manifest.profile_features,
        exclude_seen=config.evaluate.seen == "filter",
        dataset_fingerprint=manifest.fingerprint,
        run_id=tracker.run_id,
        metrics=metrics,
        versions=versions(),
    )
    folder = model_folder(config, state.name)
    save_model(folder, card, model, retriever, dataset)
    from pipelines.models import serving  # imports MLflow's model machinery, which only this step needs

    saved = load_model(folder)
    step = int(metrics.get("step", 0))
    name = state.name.replace(".", "_")  # which MLflow takes in no model's name
    told = card_text(card, described_data(manifest), config.train.metric, doubts)
    tracker.log_model(name, folder, SERVING, serving.signature(saved), serving.example(saved), step=step, card=told)
    tracker.log_text(told, "model_card.md")
    tracker.log_tags({"mind.model": shown(folder)})
    return folder


def _print_summary(config: Config, outcome: TrainOutcome, seconds: float) -> None:
    if config.train.include_validation:
        output.print(f"{outcome.model.name}: trained on the validation split too, so not validated; {seconds:.0f} s")
    else:
        output.print(f"{outcome.model.name}: best validation, after {seconds:.0f} s")
        table = Table("at", *METRICS)
        for n in config.evaluate.cutoffs:
            table.add_row(str(n), *(f"{outcome.metrics[f'validation/{metric}@{n}']:.4f}" for metric in METRICS))
        output.print(table)
    if outcome.metrics.get("routing/interest_collapse"):
        cosine = outcome.metrics["routing/interest_cosine"]
        output.print(
            f"A user's interests are alike: their mean cosine is {cosine:.2f}. mind evaluate says what each finds; "
            "a larger model.sigma sets them apart, and model.interests=1 may do as well."
        )
    for line in outcome.doubts:
        output.print(f"[yellow]Look again:[/yellow] {line}", highlight=False)
    output.print(f"Model:  {shown(outcome.model)}\nRun:    {outcome.run_id} (mind ui)", soft_wrap=True)

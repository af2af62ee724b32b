"""`mind train`: dataset -> Ray Train -> best checkpoint -> model artifact, recorded in one MLflow run.

The same command goes on with its own run after any interruption (pipelines.models.runs); a finished run is never
redone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.table import Table

from mind_core.inference import MINDRetriever, PopularityRetriever, Retriever
from mind_core.model import MIND
from pipelines.config.home_location import shown
from pipelines.config.load import resolved
from pipelines.config.schema import Config
from pipelines.config.titles import run_title
from pipelines.dataset.dataset import Dataset, described_data
from pipelines.models.artifact import FORMAT_VERSION, MARK, ModelCard, load_model, save_model
from pipelines.models.card_text import card_text
from pipelines.models.runs import RunState, claimed_run, model_folder, write_state
from pipelines.progress import console, output
from pipelines.storage.publish import require_publishable
from pipelines.tracking.notes import best_validation, note
from pipelines.tracking.run import Tracker, open_run
from pipelines.tracking.versions import versions
from pipelines.training.data import (
    TrainData,
    event_counts,
    load_data,
    load_items,
    require_room_to_train,
    validation_rows,
)
from pipelines.training.doubts import SAMPLED_USERS, doubts
from pipelines.training.fit import fit
from pipelines.training.loop import validation_metrics
from pipelines.training.startup import Timeline
from pipelines.words import counted

METRICS = ("hit_rate", "recall", "ndcg", "mrr")
REFITTED = "Trained once more on the validation split too, {}: what is published."
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
        lines: list[str] = []
        if config.model.encoder == "popularity":
            model, metrics = None, _popularity_metrics(config, dataset)
            tracker.log_metrics(metrics, 0)
            counts = event_counts(dataset, dataset.items(), config.train.ends_on_validation)
            retriever: Retriever = PopularityRetriever(counts, config.model.max_history)
        else:
            timeline.mark("tracking")
            fitted = fit(config, dataset, state, tracker, timeline)
            model, metrics, data = fitted.model, fitted.metrics, _data(config, dataset)
            retriever = judged = MINDRetriever.of(fitted.judged, data.bags)
            lines = _doubts(config, data, judged, fitted.validated)
            if config.train.refit:
                retriever = MINDRetriever.of(model, load_items(dataset, include_validation=True)[0])
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
    found = [f"Best validation: {metric} {metrics[f'validation/{metric}']:.4f}{when}."]
    if "refit/epochs" in metrics:
        found.append(REFITTED.format(counted(int(metrics["refit/epochs"]), "epoch")))
    return found


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


def _data(config: Config, dataset: Dataset) -> TrainData:
    """Read the items, and the validation users that a model is doubted on."""
    rows = validation_rows(dataset.tables("validation"), SAMPLED_USERS, config.train.seed)
    return load_data(dataset, None, rows, config.train.include_validation)


def _doubts(config: Config, data: TrainData, judged: Retriever, validated: Sequence[float]) -> list[str]:
    """Doubt the model by what it does on some of the validation users; one that was trained on these cannot be."""
    if config.train.include_validation:
        return []
    exclude_seen, interests = config.evaluate.seen == "filter", config.model.interests
    return doubts(judged, data, validated, config.train.metric, interests=interests, exclude_seen=exclude_seen)


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
        on_validation=config.train.ends_on_validation,
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
    if (epochs := outcome.metrics.get("refit/epochs")) is not None:
        output.print(REFITTED.format(counted(int(epochs), "epoch")))
    if outcome.metrics.get("routing/interest_collapse"):
        cosine = outcome.metrics["routing/interest_cosine"]
        output.print(
            f"A user's interests are alike: their mean cosine is {cosine:.2f}. mind evaluate says what each finds; "
            "a larger model.sigma sets them apart, and model.interests=1 may do as well."
        )
    for line in outcome.doubts:
        output.print(f"[yellow]Look again:[/yellow] {line}", highlight=False)
    output.print(f"Model:  {shown(outcome.model)}\nRun:    {outcome.run_id} (mind ui)", soft_wrap=True)

"""`mind pipeline`: preprocess -> train -> evaluate -> export, each left out if what it would make is there already.

Each step knows by itself how to go on after a kill; a step is over once its output is whole. So the same command, given
again and again, does what is left, in one Ray session.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from rich.table import Table

from pipelines.cluster.session import ray_session
from pipelines.cluster.template import OF_TRAINING
from pipelines.config.home_location import shown
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError, user_error
from pipelines.evaluation.evaluate import evaluate
from pipelines.models.artifact import ModelCard, load_card
from pipelines.models.runs import finished_model
from pipelines.preprocess.preprocess import Source, made_before, preprocess
from pipelines.preprocess.summary import print_summary, record_summary
from pipelines.progress import console, output
from pipelines.retrieval.export import Export, export, export_folder
from pipelines.storage.home_files import renew
from pipelines.training.train import train

T = TypeVar("T")


@dataclass(frozen=True)
class StageResult:
    """One row of the summary.  seconds : None where nothing was done.  figures : the few that say most."""

    name: str
    output: Path
    seconds: float | None
    figures: Mapping[str, float]


def pipeline(config: Config, latest: bool = True) -> list[StageResult]:
    """Do what is left of all steps; what each made, or had made before.

    Parameters
    ----------
    latest : of the export, as `export` takes it.

    Raises
    ------
    UserError
        The first step's that fails, with its name before it.
    """
    with ExitStack() as session:
        steps = _Steps(config, session)
        with _named("preprocess"):
            source = Source.read(config.data)
        dataset = steps.take(
            "preprocess",
            lambda: made_before(config, source),
            lambda: _preprocessed(config, source),
            lambda made: (config.dataset_path, _sizes(made)),
        )
        model = steps.take(
            "train",
            lambda: finished_model(config, dataset),
            lambda: train(config).model,
            lambda made: (made, _best(config, made)),
        )
        with _named("train"):
            card = load_card(model)
        report = config.place("evaluations", f"{card.name}-test")
        steps.take(
            "evaluate",
            lambda: _evaluated_before(config, dataset, card, report),
            lambda: evaluate(config, model=model.name).models[0].metrics,
            lambda metrics: (report, _headline(config, metrics)),
        )
        folder = export_folder(config, card, latest)
        steps.take(
            "export",
            lambda: Export.read(folder),
            lambda: _exported(config, model, folder, latest),
            lambda made: (folder, _counts(made)),
        )
    output.print(f"All in {shown(config.home_path)}", soft_wrap=True)
    output.print(_table(config, steps.taken))
    return steps.taken


class _Steps:
    """Takes the steps in turn; from the first that works on they have one Ray session, which ends with `session`."""

    def __init__(self, config: Config, session: ExitStack) -> None:
        self.config, self.session = config, session
        self.taken: list[StageResult] = []

    def take(
        self,
        name: str,
        before: Callable[[], T | None],
        make: Callable[[], T],
        told: Callable[[T], tuple[Path, Mapping[str, float]]],
    ) -> T:
        """Take what the step had made `before`, or else make it now; `told` says where it is, and figures of it."""
        console.print(f"[bold]{name}[/bold]")
        started, seconds = time.perf_counter(), None
        with _named(name):
            found = before()
            if found is None:
                self._start_ray()
                found = make()
                seconds = time.perf_counter() - started
            place, figures = told(found)
        if seconds is None:
            console.print(f"{shown(place)} is up to date")
        self.taken.append(StageResult(name, place, seconds, figures))
        return found

    def _start_ray(self) -> None:
        config = self.config
        if not ray.is_initialized():
            self.session.enter_context(
                ray_session(
                    config.ray,
                    workers=config.train.workers,
                    preload=OF_TRAINING,
                    home=config.home_path,
                    inputs=[config.data.events.path],
                )
            )


@contextmanager
def _named(step: str) -> Iterator[None]:
    """Tell a user's mistake, in a worker too, in one line that begins with the step; any other error says it below."""
    try:
        yield
    except Exception as error:
        if (mistake := user_error(error)) is not None:
            raise UserError(f"{step}: {mistake}") from None
        error.add_note(f"in the step {step} of mind pipeline")
        raise


def _preprocessed(config: Config, source: Source) -> Dataset:
    dataset = preprocess(config, source)
    record_summary(config, dataset)
    print_summary(dataset)
    return dataset


def _sizes(dataset: Dataset) -> dict[str, float]:
    manifest = dataset.manifest
    return {"users": manifest.users, "items": manifest.items, "events": manifest.events}


def _best(config: Config, model: Path) -> dict[str, float]:
    """Tell the best validation; nothing with train.include_validation."""
    best = load_card(model).metrics.get(f"validation/{config.train.metric}")
    return {} if best is None else {config.train.metric: best}


def _evaluated_before(config: Config, dataset: Dataset, card: ModelCard, target: Path) -> Mapping[str, float] | None:
    """Find the metrics of this very model, tested on this dataset by these settings."""
    file = renew(target / "report.json")
    if not file.is_file():
        return None
    report = json.loads(file.read_text("utf-8"))
    asked = {
        "fingerprint": dataset.manifest.fingerprint,
        "seen": config.evaluate.seen,
        "metric": config.train.metric,
        "cutoffs": config.metric_cutoffs,
    }
    model: dict[str, Any] = report["models"][0]
    same = model["run_id"] == card.run_id and all(report[name] == value for name, value in asked.items())
    return dict(model["metrics"]) if same else None


def _headline(config: Config, metrics: Mapping[str, float]) -> dict[str, float]:
    wanted = (config.train.metric, f"hit_rate@{config.train.metric.split('@')[1]}")
    return {name: metrics[name] for name in wanted if name in metrics}


def _exported(config: Config, model: Path, folder: Path, latest: bool) -> Export:
    export(config, model=model.name, latest=latest)
    made = Export.read(folder)
    assert made is not None, "an export ends with its mark"
    return made


def _counts(made: Export) -> dict[str, float]:
    return {"users": made.counts.users, "interests": made.counts.interests, "items": made.items}


def _table(config: Config, steps: list[StageResult]) -> Table:
    table = Table("step", "", "output", "figures")
    for column in table.columns:
        column.overflow = "fold"  # a path is there to be copied
    for step in steps:
        done = "up to date" if step.seconds is None else f"{step.seconds:.1f} s"
        figures = ", ".join(f"{name} {_written(value)}" for name, value in step.figures.items())
        table.add_row(step.name, done, step.output.relative_to(config.home_path).as_posix(), figures)
    return table


def _written(figure: float) -> str:
    return f"{figure:,}" if isinstance(figure, int) else f"{figure:.4f}"

"""`mind pipeline`: preprocess -> train -> evaluate -> export, each left out if what it would make is there already.

Each step knows by itself how to go on after a kill; a step is over once its output is whole. So the same command, given
again and again, does what is left, in one Ray session.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import ray
from rich.table import Table

from pipelines.artifact import ModelCard, load_card
from pipelines.config import Config
from pipelines.dataset import Dataset
from pipelines.errors import UserError
from pipelines.evaluate import evaluate
from pipelines.export import Export, export, export_folder
from pipelines.homes import shown
from pipelines.mirror import exists, renew
from pipelines.preprocess import made_before, preprocess
from pipelines.progress import console, output
from pipelines.runs import last_finished_run, model_folder
from pipelines.session import raise_user_error, ray_session
from pipelines.summary import print_summary, record_summary
from pipelines.train import train
from pipelines.train_run import cutoffs_of


@dataclass
class Step:
    """One row of the summary.  seconds : None where nothing was done.  figures : the few that say most."""

    name: str
    output: Path
    seconds: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


def pipeline(config: Config, latest: bool = False) -> list[Step]:
    """Do what is left of all steps; what each made, or had made before.

    Parameters
    ----------
    latest : of the export, as `export` takes it.

    Raises
    ------
    UserError
        The first step's that fails, with its name before it.
    """
    steps: list[Step] = []
    with ExitStack() as stack:

        def session() -> None:
            """Have one Ray session from the first step on that works."""
            if not ray.is_initialized():
                inputs = [config.data.events.path]
                stack.enter_context(
                    ray_session(config.ray, workers=config.train.workers, home=config.home_path, inputs=inputs)
                )

        for make in (_preprocess, _train, _evaluate, _export):
            name = make.__name__.removeprefix("_")
            console.print(f"[bold]{name}[/bold]")
            started = time.perf_counter()
            with _named(name):
                step = make(config, latest, session)
            if step.seconds is not None:
                step.seconds = time.perf_counter() - started
            else:
                console.print(f"{shown(step.output)} is up to date")
            steps.append(step)
    output.print(f"All in {shown(config.home_path)}", soft_wrap=True)
    output.print(_table(config, steps))
    return steps


@contextmanager
def _named(step: str) -> Iterator[None]:
    """A user's mistake, in a worker too, is one line that begins with the step; any other error says it below."""
    try:
        yield
    except Exception as error:
        try:
            raise_user_error(error)
        except UserError as mistake:
            raise UserError(f"{step}: {mistake}") from None
        error.add_note(f"in the step {step} of mind pipeline")
        raise


Session = Callable[[], None]
DONE = 0.0  # of a step that has worked; `pipeline` puts the seconds in


def _preprocess(config: Config, latest: bool, session: Session) -> Step:
    dataset, seconds = made_before(config), None
    if dataset is None:
        session()
        dataset, seconds = preprocess(config), DONE
        record_summary(config, dataset)
        print_summary(dataset)
    manifest = dataset.manifest
    return Step(
        "preprocess",
        config.dataset_path,
        seconds,
        {"users": manifest.users, "items": manifest.items, "events": manifest.events},
    )


def _train(config: Config, latest: bool, session: Session) -> Step:
    folder, seconds = _trained(config), None
    if folder is None:
        session()
        folder, seconds = train(config).model, DONE
    best = load_card(folder).metrics.get(f"validation/{config.train.metric}")  # None: train.include_validation
    return Step("train", folder, seconds, {} if best is None else {config.train.metric: best})


def _trained(config: Config) -> Path | None:
    """The model of these settings and data, if there is a whole one."""
    name = last_finished_run(config, Dataset.open(config.dataset_path))
    folder = None if name is None else model_folder(config, name)
    return folder if folder is not None and exists(folder / "config.json") else None


def _evaluate(config: Config, latest: bool, session: Session) -> Step:
    folder = _model(config)
    target, seconds = config.home_path / "evaluations" / f"{folder.name}-test", None
    if not _evaluated(config, target, load_card(folder)):
        session()
        evaluate(config, model=folder.name)
        seconds = DONE
    report = json.loads(renew(target / "report.json").read_text("utf-8"))
    metrics = report["models"][0]["metrics"]
    wanted = [
        name for name in (config.train.metric, f"hit_rate@{config.train.metric.split('@')[1]}") if name in metrics
    ]
    return Step("evaluate", target, seconds, {name: metrics[name] for name in wanted})


def _evaluated(config: Config, target: Path, card: ModelCard) -> bool:
    """Whether this very model was tested on this dataset by these settings."""
    file = renew(target / "report.json")
    if not file.is_file():
        return False
    report = json.loads(file.read_text("utf-8"))
    asked = {
        "fingerprint": Dataset.open(config.dataset_path).manifest.fingerprint,
        "seen": config.evaluate.seen,
        "metric": config.train.metric,
        "cutoffs": cutoffs_of(config),
    }
    return report["models"][0]["run_id"] == card.run_id and all(report[name] == asked[name] for name in asked)


def _export(config: Config, latest: bool, session: Session) -> Step:
    folder = _model(config)
    target, seconds = export_folder(config, load_card(folder), latest), None
    if (made := Export.read(target)) is None:
        session()
        export(config, model=folder.name, latest=latest)
        made, seconds = Export.read(target), DONE
    assert made is not None, "an export ends with its mark"
    counts = made.counts
    figures = {"users": counts.users, "interests": counts.interests, "items": made.items}
    return Step("export", target, seconds, figures)


def _model(config: Config) -> Path:
    folder = _trained(config)
    assert folder is not None, "the step before has made it"
    return folder


def _table(config: Config, steps: list[Step]) -> Table:
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

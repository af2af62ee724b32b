"""What `mind report` finds: evaluations in the home folder, and the curves of trainings in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SplitName
from pipelines.evaluation.evaluate import MARK
from pipelines.evaluation.report import REPORT_VERSION, ModelReport, Report
from pipelines.models.artifact import ModelCard, load_card
from pipelines.storage.home_files import exists, names, renew
from pipelines.tracking.run import known_run

ROUTING = ("routing/unmoved_share", "routing/coupling_entropy", "routing/interest_cosine")


@dataclass(frozen=True)
class Curves:
    """A training, report by report. epochs : of each.  values : metric -> a value of each, None where it has none."""

    epochs: list[float]
    values: dict[str, list[float | None]]

    def points(self, metric: str) -> tuple[list[float], list[float]]:
        """Epochs and values at which a metric was reported."""
        found = [(e, v) for e, v in zip(self.epochs, self.values.get(metric, []), strict=False) if v is not None]
        return [epoch for epoch, _ in found], [value for _, value in found]


def stored_report(file: Path) -> Report | None:
    """Read a report.json; None if there is none, or one of another format."""
    file = renew(file)
    if not file.is_file():
        return None
    try:
        found = TypeAdapter(Report).validate_json(file.read_text("utf-8"))
    except ValidationError:
        return None
    return found if found.version == REPORT_VERSION else None


def report_of(config: Config, dataset: Dataset, card: ModelCard, folder: Path, split: SplitName) -> Report | None:
    """Find the stored evaluation of a model that is what `mind evaluate` would give now; None without one."""
    file = config.place("evaluations", f"{card.name}-{split}") / MARK.file
    found = stored_report(file)
    if found is None or not _comparable(found, dataset, config, split):
        return None
    asked = (card.run_id, str(folder), config.metric_cutoffs, config.train.metric)
    return found if (found.models[0].run_id, found.models[0].path, found.cutoffs, found.metric) == asked else None


def evaluated_models(config: Config, dataset: Dataset, split: SplitName, metric: str) -> list[ModelReport]:
    """List the trained models of all evaluations of this dataset that have been asked for the same, each once."""
    found: dict[str, ModelReport] = {}
    for name in sorted(names(config.home_path / "evaluations")):
        report = stored_report(config.home_path / "evaluations" / name / MARK.file)
        if report is not None and _comparable(report, dataset, config, split):
            found |= {each.name: each for each in report.models if metric in each.metrics and _is_trained(each)}
    return list(found.values())


def _is_trained(model: ModelReport) -> bool:
    """Say whether it is a model that is still there, and no rule: neither a baseline nor of the preset popularity."""
    if model.path is None or not exists(Path(model.path) / "config.json"):
        return False
    return load_card(Path(model.path)).config.encoder != "popularity"


def _comparable(report: Report, dataset: Dataset, config: Config, split: str) -> bool:
    wanted = (dataset.manifest.fingerprint, split, config.evaluate.seen)
    return (report.fingerprint, report.split, report.seen) == wanted


def curves_of(config: Config, run_id: str | None, metric: str) -> Curves | None:
    """Read the curves of a training from MLflow; None if this store has not its run, or no report of it."""
    run = known_run(config, run_id)
    if run is None:
        return None
    wanted = ("train/loss", f"validation/{metric}", *ROUTING)
    history: Mapping[str, Mapping[int, float]] = {name: run.history(name) for name in ("epoch", *wanted)}
    steps = sorted(history["epoch"])
    if not steps:
        return None
    values = {name: [history[name].get(step) for step in steps] for name in wanted if history[name]}
    return Curves([history["epoch"][step] for step in steps], values)

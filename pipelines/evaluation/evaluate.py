"""`mind evaluate`: full ranking of the test users by one model, by others beside it, and always by popularity.

Ray Data's actors rank slices of users (pipelines.evaluation.ranking), the driver joins them in order and reports
(pipelines.evaluation.report). What each user got is kept as Parquet, so that two evaluations can be compared user by
user later.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from pipelines.cluster.session import ray_session
from pipelines.config.home_location import shown
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SplitName
from pipelines.errors import UserError
from pipelines.evaluation.figures import bands_figure, coupling_figure, retrieved_figure, shown_users
from pipelines.evaluation.ranking import Ranking, RankUsers, join_rankings, rankings_in
from pipelines.evaluation.report import Report, difference, labels, model_report, relative
from pipelines.models.artifact import TRAINING, ModelCard, SavedModel, described, load_card, load_model
from pipelines.models.find import find_model
from pipelines.models.over_users import STATS, UserPass
from pipelines.progress import output
from pipelines.storage.publish import Mark, published, require_publishable
from pipelines.tracking.run import Tracker, known_run, open_run

KINDS = ("hit_rate", "recall", "ndcg", "mrr", "coverage")
POPULARITY = "popularity"
MARK = Mark("report.json", lambda report: f"{report['models'][0]['name']}-{report['split']}")


def evaluate(
    config: Config, model: str | None = None, split: SplitName = "test", against: Sequence[str] = ()
) -> Report:
    """Evaluate a model on the dataset of `config`.

    Parameters
    ----------
    model, against : as `find_model` takes them; the differences of `model` to each of `against` are reported.
    split : whose targets are to be found.

    Raises
    ------
    UserError
        Without a dataset, a model of it, or users with targets in the split.
    """
    dataset = Dataset.open(config.dataset_path)
    folders = [find_model(config, dataset, given) for given in (model, *against)]
    cards = [load_card(folder) for folder in folders]
    name = f"{cards[0].name}-{split}"
    target = config.place("evaluations", name)
    require_publishable(target, MARK)
    trained = [known_run(config, card.run_id) for card in cards]  # None: trained elsewhere
    parent = None if trained[0] is None else trained[0].run_id
    with open_run(described(config, cards[0]), "evaluate", name, parent=parent, without=TRAINING) as tracker:
        ranking, stats = _rank(config, dataset, folders, split)
        report = _report(config, dataset, folders, cards, ranking, split)
        with published(target, MARK) as folder:
            (folder / MARK.file).write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")
            pq.write_table(_per_user(dataset, report, ranking), folder / "users.parquet")
            (folder / STATS).write_text(stats, "utf-8")
            _draw(report, load_model(folders[0]), dataset, split, folder)
        _record(config, tracker, cards, trained, report, target)
    _print(report, target)
    return report


def _rank(config: Config, dataset: Dataset, folders: list[Path], split: SplitName) -> tuple[Ranking, str]:
    """What the models made of the users of a split, and Ray Data's statistics of it."""
    arguments = {"cutoffs": config.metric_cutoffs, "exclude_seen": config.evaluate.seen == "filter"}
    with ray_session(config.ray, workers=config.train.workers, home=config.home_path):
        everyone = UserPass(dataset, [split], config, RankUsers, folders, arguments)
        parts = list(rankings_in(everyone.blocks(f"Ranking {split} users")))
        stats = everyone.stats()
    ranking = join_rankings(parts) if parts else None
    if ranking is None or not len(ranking.users):
        raise UserError(f"{dataset}: nobody in the {split} split has an item left to find; check data.split, "
                        "and evaluate.seen: filter leaves out what users already had")  # fmt: skip
    return ranking, stats


def _report(
    config: Config, dataset: Dataset, folders: list[Path], cards: list[ModelCard], ranking: Ranking, split: SplitName
) -> Report:
    counts = dataset.items()["train_count"].to_numpy()
    names = [card.name for card in cards]
    shown = labels(names, [card.preset for card in cards])
    reports = [
        model_report(ranking, outcome, counts, name=card.name, label=label, path=str(folder), run_id=card.run_id)
        for card, label, folder, outcome in zip(cards, shown, folders, ranking.models[:-1], strict=True)
    ]
    baseline = model_report(
        ranking, ranking.models[-1], counts, name=POPULARITY, label=POPULARITY, path=None, run_id=None
    )
    metric = config.train.metric
    first = ranking.models[0].metrics[metric]
    return Report(
        dataset=str(dataset.path),
        fingerprint=dataset.manifest.fingerprint,
        split=split,
        seen=config.evaluate.seen,
        metric=metric,
        cutoffs=config.metric_cutoffs,
        users=len(ranking.users),
        targets=len(ranking.targets),
        seen_targets=ranking.seen_targets,
        users_left_out=ranking.left_out,
        catalogue=len(counts),
        models=[*reports, baseline],
        differences=[
            difference(first, other.metrics[metric], label)
            for other, label in zip(ranking.models[1:], [*shown[1:], POPULARITY], strict=True)
        ],
    )


def _per_user(dataset: Dataset, report: Report, ranking: Ranking) -> pa.Table:
    """One row per user: raw id, history length and the evaluated model's metrics."""
    columns = {name: pa.array(values) for name, values in ranking.models[0].metrics.items()}
    ids = dataset.vocabulary("users")["id"].take(pa.array(ranking.users))
    return pa.table({"user": ids, "history_length": pa.array(ranking.lengths), **columns}).replace_schema_metadata(
        {"model": report.models[0].name, "split": report.split, "seen": report.seen}
    )


def _draw(report: Report, model: SavedModel, dataset: Dataset, split: SplitName, folder: Path) -> None:
    figures = {"bands": bands_figure(report)}
    if (users := shown_users(model, next(dataset.tables(split)), dataset)) is not None:
        figures["coupling"] = coupling_figure(model, users)
        if (retrieved := retrieved_figure(model, users, dataset)) is not None:
            figures["retrieved"] = retrieved
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)


def _record(
    config: Config,
    tracker: Tracker,
    cards: list[ModelCard],
    trained: list[Tracker | None],
    report: Report,
    folder: Path,
) -> None:
    """The figures to the evaluation's run, and each model's to its training run, where models are compared."""
    step = int(cards[0].metrics.get("step", 0))
    tracker.log_metrics(_test_metrics(report, 0), step)
    baseline = report.models[-1].metrics
    tracker.log_metrics({f"{report.split}/popularity/{name}": value for name, value in baseline.items()}, step)
    tracker.log_dataset(config.name, report.fingerprint, report.dataset, report.split)
    tracker.log_tags({"mind.model": str(report.models[0].path), "mind.train_run": cards[0].run_id or ""})
    tracker.log_artifact(folder)
    for number, (card, training) in enumerate(zip(cards, trained, strict=True)):
        if training is not None:  # not opened as a context: this run ended with its training
            training.log_metrics(_test_metrics(report, number), int(card.metrics.get("step", 0)))


def _test_metrics(report: Report, model: int) -> dict[str, float]:
    return {f"{report.split}/{name}": value for name, value in report.models[model].metrics.items()}


def _print(report: Report, folder: Path) -> None:
    output.print(f"[bold]{report.models[0].name}[/bold]: {report.protocol}")
    compared = [f"vs {found.against}" for found in report.differences]
    overall = Table("metric", *(model.label for model in report.models), *compared)
    for column in overall.columns[1:]:
        column.justify = "right"
    for n in report.cutoffs:
        for kind in KINDS:
            values = [model.metrics[f"{kind}@{n}"] for model in report.models]
            row = [f"{value:.4f}" for value in values], [relative(values[0], value) for value in values[1:]]
            overall.add_row(f"{kind}@{n}", *row[0], *row[1], end_section=kind == KINDS[-1])
    output.print(overall)
    for found in report.differences:
        output.print(f"{report.metric}: {found.mean:+.4f} against {found.against}, 95 % of resampled users between "
                      f"{found.low:+.4f} and {found.high:+.4f}")  # fmt: skip
    bands = Table(f"{report.metric} by", "band", "users or targets", *(model.label for model in report.models))
    for column in bands.columns[2:]:
        column.justify = "right"
    cutoff = report.metric.split("@")[1]
    for what, metric, groups in (
        ("behaviours in the history", report.metric, [model.by_history for model in report.models]),
        (f"popularity of the target (recall@{cutoff})", f"recall@{cutoff}", [m.by_popularity for m in report.models]),
    ):
        for place, band in enumerate(groups[0]):
            figures = [f"{group[place].metrics[metric]:.4f}" for group in groups]
            last = place == len(groups[0]) - 1
            bands.add_row("" if place else what, band.name, f"{band.size:,}", *figures, end_section=last)
    output.print(bands)
    share = report.models[0].interest_share
    if len(share) > 1:
        shares = ", ".join(f"{100 * part:.0f} %" for part in share)
        average = np.average(np.arange(1, len(share) + 1), weights=report.models[0].users_by_interests)
        output.print(f"Recommended items by interest: {shares}; {average:.1f} interests a user")
    if report.seen_targets:
        output.print(f"{report.seen_targets:,} targets were already in the history and are not asked for "
                      f"({report.users_left_out:,} users had no other)")  # fmt: skip
    output.print(f"Report: {shown(folder)} (report.json, users.parquet, figures)", soft_wrap=True)

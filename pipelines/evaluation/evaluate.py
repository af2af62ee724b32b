"""`mind evaluate`: full ranking of the test users by one model, by others beside it, and always by the baselines.

The baselines are fitted to the train split once (pipelines.evaluation.baselines), Ray Data's actors rank slices of
users (pipelines.evaluation.ranking), the driver joins them in order and reports (pipelines.evaluation.report). What
each user got is kept as Parquet, so that two evaluations can be compared user by user later.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset, described_data
from pipelines.dataset.splits import SplitName
from pipelines.errors import UserError
from pipelines.evaluation.baselines import LABELS, FittedBaselines, fit_baselines
from pipelines.evaluation.in_words import differences, for_card, headline
from pipelines.evaluation.interests import SAMPLED_USERS
from pipelines.evaluation.lists import Categories, item_categories
from pipelines.evaluation.ranking import Ranking, RankUsers, join_rankings, rankings_in
from pipelines.evaluation.report import (
    Floats,
    Report,
    compared_metrics,
    cutoff_of,
    difference,
    groups_of,
    labels,
    metrics_of,
    model_report,
)
from pipelines.evaluation.show_report import show_report
from pipelines.evaluation.variety import PriceSettings, price_report, price_settings
from pipelines.models.artifact import TRAINING, ModelCard, SavedModel, described, load_card, load_model
from pipelines.models.card_text import card_text
from pipelines.models.find import find_model
from pipelines.models.over_users import STATS, user_pass
from pipelines.progress import progress
from pipelines.storage.publish import Mark, published, require_publishable
from pipelines.tracking.notes import note
from pipelines.tracking.run import Tracker, known_run, open_run

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
        Without a dataset, a model of it, or users with targets in the split; or with a model that was trained on it.
    """
    dataset = Dataset.open(config.dataset_path)
    folders = [find_model(config, dataset, given) for given in (model, *against)]
    cards = [load_card(folder) for folder in folders]
    if split == "validation" and (known := next((card for card in cards if card.on_validation), None)):
        raise UserError(f"{known.name} was trained on the validation split too, which measures it no more; evaluate "
                        "the test split, or train with train.refit=false")  # fmt: skip
    name = f"{cards[0].name}-{split}"
    target = config.place("evaluations", name)
    require_publishable(target, MARK)
    cutoff, users = int(config.train.metric.split("@")[1]), dataset.manifest.splits[split].users
    price = price_settings(config, dataset, cutoff, cards[0].config.interests, users)
    trained = [known_run(config, card.run_id) for card in cards]  # None: trained elsewhere
    parent = None if trained[0] is None else trained[0].run_id
    title = f"{split} of {cards[0].name}"
    with open_run(described(config, cards[0]), "evaluate", title, parent=parent, without=TRAINING) as tracker:
        with progress("Fitting the baselines", total=None):
            baselines = fit_baselines(dataset, config, on_validation=any(card.on_validation for card in cards))
        categories = item_categories(dataset, config.evaluate.category)
        ranking, stats = _rank(config, dataset, folders, baselines, categories, split, price)
        report, per_user = _report(config, dataset, folders, cards, baselines, categories, ranking, split)
        report = replace(report, price=price_report(price, ranking.prices, report.catalogue))
        with published(target, MARK) as folder:
            (folder / MARK.file).write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")
            pq.write_table(_per_user(dataset, report, ranking, per_user), folder / "users.parquet")
            (folder / STATS).write_text(stats, "utf-8")
            _draw(report, load_model(folders[0]), dataset, split, folder)
        _record(config, dataset, tracker, cards, trained, report, target)
    show_report(report, target)
    return report


def _rank(
    config: Config,
    dataset: Dataset,
    folders: list[Path],
    baselines: FittedBaselines,
    categories: Categories | None,
    split: SplitName,
    price: PriceSettings | None,
) -> tuple[Ranking, str]:
    """What the models made of the users of a split, and statistics of the pass."""
    arguments = {
        "cutoffs": config.metric_cutoffs,
        "exclude_seen": config.evaluate.seen == "filter",
        "every": max(1, dataset.manifest.splits[split].users // SAMPLED_USERS),
        "depth": cutoff_of(config.train.metric),
    }
    shared = {"baselines": baselines, "categories": categories, "price": price}
    with user_pass(dataset, [split], config, RankUsers, folders, arguments, shared) as everyone:
        parts = list(rankings_in(everyone.blocks(f"Ranking {split} users")))
        stats = everyone.stats()
    ranking = join_rankings(parts) if parts else None
    if ranking is None or not len(ranking.users):
        raise UserError(f"{dataset}: nobody in the {split} split has an item left to find; check data.split, "
                        "and evaluate.seen: filter leaves out what users already had")  # fmt: skip
    return ranking, stats


def _report(
    config: Config,
    dataset: Dataset,
    folders: list[Path],
    cards: list[ModelCard],
    baselines: FittedBaselines,
    categories: Categories | None,
    ranking: Ranking,
    split: SplitName,
) -> tuple[Report, dict[str, Floats]]:
    """Make the report, and the evaluated model's metrics of each user."""
    counts, cutoffs, metric = dataset.items()["train_count"].to_numpy(), config.metric_cutoffs, config.train.metric
    rules = list(baselines.scorers(config.evaluate.seen == "filter"))
    shown = labels([card.name for card in cards], [card.preset for card in cards])
    described_by: list[dict[str, Any]] = [
        {"name": card.name, "label": label, "path": str(folder), "run_id": card.run_id}
        for card, label, folder in zip(cards, shown, folders, strict=True)
    ]
    described_by += [{"name": rule, "label": LABELS[rule], "note": baselines.notes.get(rule)} for rule in rules]
    models, differences = [], []
    first: dict[str, Floats] = {}
    for words, outcome in zip(described_by, ranking.models, strict=True):
        metrics = metrics_of(ranking, outcome, cutoffs, counts)  # of one model at a time, beside the first
        models.append(model_report(ranking, outcome, metrics, counts, categories, **words))
        first = first or metrics
        if metrics is not first:
            compared = compared_metrics(metric, metrics)
            differences += [difference(first[name], metrics[name], words["label"], name) for name in compared]
    report = Report(
        dataset=str(dataset.path),
        fingerprint=dataset.manifest.fingerprint,
        split=split,
        seen=config.evaluate.seen,
        metric=metric,
        cutoffs=cutoffs,
        users=len(ranking.users),
        targets=len(ranking.targets),
        groups=groups_of(ranking),
        seen_targets=ranking.seen_targets,
        users_left_out=ranking.left_out,
        catalogue=len(counts),
        models=models,
        differences=sorted(differences, key=lambda found: found.metric != metric),
        baselines_left_out=baselines.left_out,
    )
    return report, first


def _per_user(dataset: Dataset, report: Report, ranking: Ranking, metrics: dict[str, Floats]) -> pa.Table:
    """One row per user: raw id, history length, interests and the model's metrics; null: no target of the group."""
    columns = {name: pa.array(values, from_pandas=True) for name, values in metrics.items()}
    columns = {"interests": pa.array(ranking.models[0].own), **columns}
    ids = dataset.vocabulary("users")["id"].take(pa.array(ranking.users))
    return pa.table({"user": ids, "history_length": pa.array(ranking.lengths), **columns}).replace_schema_metadata(
        {"model": report.models[0].name, "split": report.split, "seen": report.seen}
    )


def _draw(report: Report, model: SavedModel, dataset: Dataset, split: SplitName, folder: Path) -> None:
    # Matplotlib is slow to import, and a mistake shall be told before
    from pipelines.evaluation.figures import bands_figure, coupling_figure, retrieved_figure, shown_users
    from pipelines.evaluation.variety_figure import variety_figure

    figures = {"bands": bands_figure(report)}
    if report.price is not None:
        figures["variety"] = variety_figure(report.price, report.models[0].name)
    if (users := shown_users(model, next(dataset.tables(split)), dataset)) is not None:
        figures["coupling"] = coupling_figure(model, users)
        if (retrieved := retrieved_figure(model, users, dataset)) is not None:
            figures["retrieved"] = retrieved
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)


def _record(
    config: Config,
    dataset: Dataset,
    tracker: Tracker,
    cards: list[ModelCard],
    trained: list[Tracker | None],
    report: Report,
    folder: Path,
) -> None:
    """The figures to the evaluation's run, and each model's to its training run, where models are compared."""
    step = int(cards[0].metrics.get("step", 0))
    tracker.log_metrics(_test_metrics(report, 0), step)
    for baseline in report.models[len(cards) :]:
        named = {f"{report.split}/{baseline.name}/{name}": value for name, value in baseline.metrics.items()}
        tracker.log_metrics(named, step)
    tracker.log_dataset(config.name, report.fingerprint, report.dataset, report.split)
    tracker.log_tags({"mind.model": str(report.models[0].path), "mind.train_run": cards[0].run_id or ""})
    data = described_data(dataset.manifest)
    found = [f"{headline(report)}.", *(f"{line}." for line in differences(report))]
    then = "mind recommend CONF --all"
    tracker.describe(note(f"Evaluation of {cards[0].name}: {report.protocol}.", data, found, then))
    tracker.log_artifact(folder)
    for number, (card, training) in enumerate(zip(cards, trained, strict=True)):
        if training is not None:  # not opened as a context: this run ended with its training
            step = int(card.metrics.get("step", 0))
            training.log_model_metrics(_test_metrics(report, number), step, (config.name, report.fingerprint))
            doubts = (training.tag("mind.doubts") or "").splitlines()
            if report.split == "test":
                text = card_text(card, data, report.metric, doubts, for_card(report, number))
                training.describe_model(text)


def _test_metrics(report: Report, model: int) -> dict[str, float]:
    found = report.models[model]
    interests = {} if found.interests is None else found.interests.metrics()
    interests |= {f"interests/hit_share_{number}": share for number, share in enumerate(found.hit_share, 1)}
    return {f"{report.split}/{name}": value for name, value in (found.metrics | interests).items()}

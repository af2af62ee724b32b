"""What follows the search: the winner is trained again, tested once beside its rival, and registered as challenger."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table as Printed

from pipelines.config.home_location import shown
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.report import Report
from pipelines.models.artifact import load_card
from pipelines.models.runs import model_folder, read_state, run_stem
from pipelines.progress import console, output
from pipelines.storage.home_files import exists
from pipelines.storage.tables import write_text
from pipelines.tracking.notes import note
from pipelines.tracking.registry import CHALLENGER, register_model
from pipelines.tracking.run import Tracker
from pipelines.tracking.store import store_of
from pipelines.training.fit import refit_config
from pipelines.training.train import train
from pipelines.tuning.config import Campaign
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.load import Loaded, write_state
from pipelines.tuning.report.conclusion import conclusion
from pipelines.tuning.report.figures import campaign_figures
from pipelines.tuning.report.html import Table, campaign_html
from pipelines.tuning.report.results import Row, leaderboard, rival_of, savings, winner
from pipelines.tuning.space import trial_config
from pipelines.tuning.wording import values_text
from pipelines.words import counted

SHOWN = 12  # points of the leaderboard on the terminal


@dataclass(frozen=True)
class Tested:
    """The winner on the test set.  lines : what to say of it.  table : metrics beside the rivals."""

    lines: list[str]
    table: Table


def finish(loaded: Loaded, dataset: Dataset, parent: Tracker, records: list[TrialRecord]) -> Path:
    """Report on the search, then train, test and register the winner; the path of the HTML report.

    Raises
    ------
    UserError
        If no trial succeeded.
    """
    campaign, metric = loaded.campaign, loaded.base.train.metric
    rows = leaderboard(records, metric, campaign)
    first = winner(rows, campaign.finish)
    _print(campaign, metric, rows, records)
    figures = campaign_figures(records, metric, campaign)
    page = _write_page(loaded, parent, records, figures)
    _record(loaded, parent, rows, records, figures)
    if first is None:
        failed = next(record for record in records if record.status == "failed")
        raise UserError(
            f"{campaign.campaign}: every trial failed, the first with: {failed.reason}; report: {shown(page)}"
        )
    if campaign.finish.refit != "none":
        tested = _test(loaded, dataset, parent, rows, first)
        for line in tested.lines:
            output.print(line, soft_wrap=True)
        _write_page(loaded, parent, records, figures, tested)
    output.print(f"Report: {shown(page)}\nRun:    {parent.run_id} (mind ui)", soft_wrap=True)
    return page


def _print(campaign: Campaign, metric: str, rows: list[Row], records: list[TrialRecord]) -> None:
    table = Printed(title=f"{campaign.campaign}: {counted(len(rows), 'point')}", title_justify="left")
    for column in ("", metric, "+/-", "epoch", "trials", "settings"):
        table.add_column(column, justify="left" if column == "settings" else "right")
    for row in [row for row in rows if row.scored][:SHOWN]:
        deviation = "" if row.deviation is None else f"{row.deviation:.4f}"
        how = f"{row.trials}" + (f" ({row.stopped} stopped)" if row.stopped else "")
        table.add_row(
            str(row.rank), f"{row.metric:.4f}", deviation, f"{row.best_epoch:g}", how, values_text(row.values)
        )
    output.print(table)
    for sentence in conclusion(records, metric, campaign):
        output.print(sentence, soft_wrap=True)


def _write_page(
    loaded: Loaded,
    parent: Tracker,
    records: list[TrialRecord],
    figures: Mapping[str, Figure],
    tested: Tested | None = None,
) -> Path:
    """Write the report into the campaign's folder and to MLflow."""
    after, table = ([], None) if tested is None else (tested.lines, tested.table)
    page, metric = loaded.folder / "report.html", loaded.base.train.metric
    write_text(campaign_html(records, metric, loaded.campaign, figures, after=after, table=table), page)
    parent.log_artifact(page)
    return page


def _record(
    loaded: Loaded, parent: Tracker, rows: list[Row], records: list[TrialRecord], figures: Mapping[str, Figure]
) -> None:
    """Write the leaderboard, the figures and what the search took to MLflow."""
    campaign, metric = loaded.campaign, loaded.base.train.metric
    board = loaded.folder / "leaderboard.json"
    write_text(json.dumps([_plain(row) for row in rows], indent=1) + "\n", board)
    parent.log_artifact(board)
    for name, figure in figures.items():
        parent.log_figure(figure, f"figures/{name}.png")
    spent = savings(records)
    numbers = {
        "campaign/trials": float(len(records)),
        "campaign/seconds": spent.seconds,
        "campaign/saved_seconds": spent.saved_seconds,
        "campaign/saved_share": spent.saved_share,
    }
    if (first := winner(rows, campaign.finish)) is not None:
        numbers[f"validation/best/{metric}"] = first.metric
        won = f"Winner: {values_text(first.values)}, validation {metric} {first.metric:.4f}."
        parent.log_tags({"mind.winner": values_text(first.values)})
        tried = f"{counted(len(records), 'trial')} of {counted(len(rows), 'point')}"
        parent.describe(note(f"Campaign {campaign.campaign}: {tried}.",
                             "The search, trial by trial, is in the runs below this one; `report.html` shows it.",
                             [won, *conclusion(records, metric, campaign)],
                             f"mind promote {loaded.base_source}"))  # fmt: skip
    parent.log_metrics(numbers, len(records))


def _plain(row: Row) -> dict[str, Any]:
    """Make values JSON can hold, which has no NaN."""
    values = {
        "rank": row.rank,
        "values": row.values,
        "metric": row.metric,
        "deviation": row.deviation,
        "scores": row.scores,
        "epoch": row.best_epoch,
        "finished": row.finished,
        "stopped": row.stopped,
        "failed": row.failed,
        "lookups": row.lookups,
        "multiply_adds": row.multiply_adds,
        "reason": row.reason,
    }
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def _test(loaded: Loaded, dataset: Dataset, parent: Tracker, rows: list[Row], first: Row) -> Tested:
    """Train the winner and its rival again, test both once, register the winner; what is done is not done again."""
    campaign = loaded.campaign
    config = _refit_config(loaded, first)
    model = _trained(config, dataset)
    rivals = []
    if campaign.finish.against is not None:
        rival = rival_of(rows, first, campaign.finish.against)
        if rival is not None:
            rivals.append(str(_trained(_refit_config(loaded, rival), dataset)))
    state = json.loads((loaded.folder / "campaign.json").read_text("utf-8"))
    wanted = {"model": str(model), "rivals": rivals}
    if state.get("tested", {}).get("wanted") != wanted:
        report = evaluate(config, model=str(model), against=rivals)
        lines, table = _told(report, first)
        parent.log_metrics({f"test/{name}": value for name, value in report.models[0].metrics.items()}, 0)
        state["tested"] = {"wanted": wanted, "lines": lines, "head": list(table.head), "table": list(table.lines)}
        write_state(loaded.folder, state)
    entry = {"model": str(model), "name": campaign.finish.register_as or config.name}
    if state.get("registered", {}).get("entry") != entry:  # else a later campaign's model may be the challenger by now
        version = _register(entry["name"], campaign, config, dataset, model, parent)
        if version is not None:
            state["registered"] = {"entry": entry, "version": version}
            write_state(loaded.folder, state)
    said = "The model is not in MLflow, so it was not registered."
    if state.get("registered", {}).get("entry") == entry:
        said = (f"Registered as {entry['name']}, version {state['registered']['version']}, alias {CHALLENGER}; "
                f"next: mind promote {loaded.base_source}")  # fmt: skip
    done = state["tested"]
    return Tested([*done["lines"], said], Table(done["head"], done["table"]))


def _refit_config(loaded: Loaded, row: Row) -> Config:
    """Give the base the point's values, its own workers, and where nothing is left to validate on, the best epochs."""
    config = trial_config(loaded.base, row.values)
    if loaded.campaign.finish.refit == "train":
        return config
    return refit_config(config, max(1, round(row.best_epoch)))


def _trained(config: Config, dataset: Dataset) -> Path:
    """Find or train the model of these settings: the same settings train the same."""
    first = read_state(config, run_stem(config, dataset))
    folder = model_folder(config, first.name)
    if first.finished and exists(folder / "config.json"):
        console.print(f"{folder.name} is trained already")
        return folder
    return train(config).model


def _told(report: Report, first: Row) -> tuple[list[str], Table]:
    metric = report.metric
    lines = [f"On the test set, {report.protocol}: {metric} {report.models[0].metrics[metric]:.4f} "
             f"with {values_text(first.values)}."]  # fmt: skip
    for found in report.headlines:
        sure = "ahead" if found.low > 0 else "behind" if found.high < 0 else "not told apart"
        lines.append(f"{metric} {found.mean:+.4f} against {found.against}, 95 % of resampled users between "
                     f"{found.low:+.4f} and {found.high:+.4f}: {sure}.")  # fmt: skip
    names = [name for name in report.models[0].metrics if name.split("@")[0] in ("hit_rate", "recall", "ndcg", "mrr")]
    cells = [[name, *(f"{model.metrics[name]:.4f}" for model in report.models)] for name in names]
    return lines, Table(["test", *(model.label for model in report.models)], cells)


def _register(
    name: str, campaign: Campaign, config: Config, dataset: Dataset, model: Path, parent: Tracker
) -> str | None:
    """Enter the model into the registry, as the version returned; None if MLflow does not have it."""
    card = load_card(model)
    uri = None if card.run_id is None else Tracker(store_of(config), card.run_id).tag("mind.model_uri")
    if uri is None:
        return None
    tags = {
        "mind.model": str(model),
        "mind.dataset": dataset.manifest.fingerprint,
        "mind.run": card.run_id or "",
        "mind.campaign": campaign.campaign,
        "mind.campaign_run": parent.run_id,
    }
    return register_model(store_of(config), uri, name, CHALLENGER, tags)

"""ASHA against the whole grid on Beauty, K by routing depth: the same winner, for how much less? Part of
benchmarks/tune.py
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.campaigns import records_of
from benchmarks.cli_runs import mind
from benchmarks.measure import REPOSITORY, Options
from benchmarks.report import Finding, Sheet, Target
from pipelines.tuning.config import Campaign
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.load import load_campaign
from pipelines.tuning.report.results import Row, leaderboard, savings, winner
from pipelines.tuning.wording import values_text

CONF = "conf/beauty-tune.yaml"
GRID, ASHA = "beauty-grid", "beauty-asha"
GOAL = 0.4  # of the grid's compute


def run(options: Options) -> Finding:
    """Both campaigns in a home that keeps them: one that is over is read, not run again."""
    home = options.cache / "tune-home"
    campaigns = {GRID: "none", ASHA: "asha"}
    sets = ["--set", "settings.train.epochs=2", "--set", "stopping.grace_epochs=1"] if options.quick else []
    suffix = "-quick" if options.quick else ""
    if not (home / "datasets" / "beauty" / "manifest.json").is_file():
        mind("preprocess", "conf/beauty.yaml", "--home", str(home))
    for name, method in campaigns.items():
        more = [f"campaign={name}{suffix}", f"stopping.method={method}", "finish.refit=none"]
        mind("tune", CONF, "--home", str(home), *sets, *(word for text in more for word in ("--set", text)))
    return compared(home, GRID + suffix, ASHA + suffix)


def compared(home: Path, grid: str, asha: str) -> Finding:
    """Compare two campaigns that are over."""
    loaded = load_campaign(REPOSITORY / CONF, home=str(home))
    metric = loaded.base.train.metric
    records = {name: records_of(home, name) for name in (grid, asha)}
    first = {name: _winner(records[name], home, name, metric) for name in records}
    spent = {name: savings(records[name]) for name in records}
    best = {row.point: row.metric for row in leaderboard(records[grid], metric, loaded.campaign)}
    rows = [
        [name, values_text(first[name].values), f"{first[name].metric:.4f}", f"{best[first[name].point]:.4f}",
         f"{spent[name].epochs:g}", f"{spent[name].seconds:,.0f}"]
        for name in records
    ]  # fmt: skip
    epochs = spent[asha].epochs / spent[grid].epochs
    seconds = spent[asha].seconds / spent[grid].seconds
    figures = {
        "epochs_share": epochs,
        "seconds_share": seconds,
        "winners": {name: {"values": row.values, "metric": row.metric} for name, row in first.items()},
        "grid": {str(point): value for point, value in best.items()},
    }
    columns = ["campaign", "winner", metric, "in the whole grid", "epochs", "training seconds"]
    notes = [f"ASHA's share of the grid's epochs {epochs:.2f}, of its seconds {seconds:.2f} (with whatever ran beside)"]
    target = Target("grid's epochs over ASHA's", 1 / epochs, 1 / GOAL)
    return Finding(figures, [Sheet("ASHA against the whole grid", columns, rows, notes)], [target])


def _winner(records: list[TrialRecord], home: Path, name: str, metric: str) -> Row:
    stored = json.loads((home / "campaigns" / name / "campaign.json").read_text("utf-8"))
    campaign = Campaign.model_validate(stored["campaign"])
    found = winner(leaderboard(records, metric, campaign), campaign.finish)
    assert found is not None, "a trial that ended"
    return found

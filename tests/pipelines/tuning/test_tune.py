"""A campaign through Ray Tune and Ray Train: the ledger, Tune and MLflow tell the same, and nothing is done twice."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from pipelines.config.load import resolved
from pipelines.errors import UserError
from pipelines.tracking.run import metric_name
from pipelines.tracking.store import store_of
from pipelines.tuning.ledger import Ledger, TrialRecord
from pipelines.tuning.load import Loaded, load_campaign, stored_campaign
from pipelines.tuning.tune import tune
from tests.pipelines.planted import configure

TOO_WIDE = 4 * 10**12  # of a vector: no machine has the memory
SPACE = {
    "model.interests": {"grid": [1, 2, 3]},
    "model.dim": {"grid": [8, TOO_WIDE], "when": {"model.interests": [1, 3]}},
}


@dataclass
class Campaigns:
    """Makes campaigns over the planted dataset."""

    base: Path
    folder: Path

    def load(self, name: str, **sections: Any) -> Loaded:
        values = {"campaign": name, "base": self.base.name, "space": SPACE, **sections}
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values, sort_keys=False))
        return load_campaign(file)


@pytest.fixture(scope="module")
def campaigns(planted_home: Path, planted_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Campaigns:
    folder = tmp_path_factory.mktemp("campaigns")
    base = folder / "base.yaml"
    home = folder / "home"  # of its own: other tests count the runs of the shared one
    home.mkdir()
    (home / "datasets").symlink_to(planted_home / "datasets")
    config = configure(home, planted_log, workers=1, epochs=4, patience=None)
    base.write_text(yaml.safe_dump(resolved(config)))
    return Campaigns(base, folder)


@pytest.fixture(scope="module")
def searched(campaigns: Campaigns) -> Loaded:
    """A grid with a failing point, stopped early, and a winner that is trained, tested and registered."""
    loaded = campaigns.load(
        "grid",
        stopping={"method": "asha", "grace_epochs": 1, "reduction": 2},
        finish={"against": {"model.interests": 1}},
    )
    tune(loaded)
    return loaded


def records_of(loaded: Loaded) -> list[TrialRecord]:
    return Ledger(loaded.folder).read()


def runs_of(loaded: Loaded) -> dict[int, Any]:
    """MLflow's runs of the trials, by number; several with one number fail the test."""
    client = mlflow.MlflowClient(store_of(loaded.base))
    state = json.loads((loaded.folder / "campaign.json").read_text())
    experiment = client.get_run(state["run_id"]).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{state['run_id']}'")
    found: dict[int, Any] = {}
    for run in runs:
        number = int(run.data.tags["mind.trial"])
        assert number not in found, "a trial has one run"
        found[number] = run
    return found


def assert_mlflow_has_the_same(loaded: Loaded) -> None:
    """Every trial, status and number of the ledger, and none besides."""
    client = mlflow.MlflowClient(store_of(loaded.base))
    runs, records = runs_of(loaded), records_of(loaded)
    assert set(runs) == {record.number for record in records}
    for record in records:
        run = runs[record.number]
        assert run.info.status == {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[record.status]
        assert run.data.params["model.interests"] == str(record.values["model.interests"])
        names = {name for report in record.reports for name in report} - {"step"}
        for name in names:
            wanted = {int(report["step"]): report[name] for report in record.reports if name in report}
            history = client.get_metric_history(run.info.run_id, metric_name(name))
            assert len(history) == len(wanted), f"{name}: no step twice"
            assert {point.step: point.value for point in history} == pytest.approx(wanted, rel=1e-12, nan_ok=True)


def assert_tune_saw_the_same(loaded: Loaded, killed: bool = False) -> None:
    """Ray Tune's own files, over all starts of the campaign, have every report of the ledger and no other.

    killed : the driver was, with the last lines of the files of that start, which Tune copies to the storage later.
    """
    seen: dict[int, dict[float, float]] = {}
    metric = loaded.base.train.metric
    for file in loaded.folder.glob("ray/tune-*/*/result.json"):
        for line in file.read_text().splitlines():
            result = json.loads(line)
            if "reports" in result:
                number = result["config"]["number"]
                assert result["quality"] == result["reports"][-1][f"validation/{metric}"]
                for report in result["reports"]:
                    seen.setdefault(number, {})[report["step"]] = report[f"validation/{metric}"]
    for record in records_of(loaded):
        wanted = {report["step"]: report[f"validation/{metric}"] for report in record.reports}
        found = seen.get(record.number, {})
        assert found == ({step: wanted[step] for step in found} if killed else wanted)


@pytest.mark.ray
def test_every_point_is_trained_once_and_a_failing_one_stops_nobody(searched: Loaded) -> None:
    records = records_of(searched)
    assert [record.values for record in records] == [
        {"model.interests": 1, "model.dim": 8},
        {"model.interests": 1, "model.dim": TOO_WIDE},
        {"model.interests": 2},
        {"model.interests": 3, "model.dim": 8},
        {"model.interests": 3, "model.dim": TOO_WIDE},
    ]
    failed = [record for record in records if record.status == "failed"]
    assert [record.number for record in failed] == [2, 5]
    assert all("\n" not in str(record.reason) and "would take" in str(record.reason) for record in failed)
    for record in records:
        if record.status != "failed":
            assert [report["epoch"] for report in record.reports] == list(range(1, len(record.reports) + 1))
            assert record.status == ("finished" if len(record.reports) == 4 else "stopped")


@pytest.mark.ray
def test_the_ledger_tune_and_mlflow_agree_on_every_number(searched: Loaded) -> None:
    assert_mlflow_has_the_same(searched)
    assert_tune_saw_the_same(searched)


@pytest.mark.ray
def test_the_winner_is_trained_tested_once_and_registered_as_challenger(searched: Loaded) -> None:
    client = mlflow.MlflowClient(store_of(searched.base))
    challenger = client.get_model_version_by_alias("planted", "challenger")
    state = json.loads((searched.folder / "campaign.json").read_text())
    assert challenger.tags["mind.model"] == state["tested"]["wanted"]["model"]
    parent = client.get_run(state["run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["test/ndcg_at_20"] > 0
    artifacts = {file.path for file in client.list_artifacts(state["run_id"])}
    assert {"report.html", "leaderboard.json", "campaign.yaml", "figures"} <= artifacts
    page = (searched.folder / "report.html").read_text()
    assert "On the test set" in page
    assert "would take" in page, "why a trial failed"


@pytest.mark.ray
def test_a_campaign_that_is_over_trains_nothing_again(searched: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.stat().st_mtime_ns for file in searched.folder.glob("trials/*.json")}
    monkeypatch.setattr("pipelines.tuning.tune._trainable", None)
    monkeypatch.setattr("pipelines.tuning.finish.train", None)
    monkeypatch.setattr("pipelines.tuning.finish.evaluate", None)
    tune(stored_campaign("grid", searched.base.home_path))
    assert {file: file.stat().st_mtime_ns for file in searched.folder.glob("trials/*.json")} == before
    assert_mlflow_has_the_same(searched)


@pytest.mark.ray
def test_a_campaign_is_extended_with_seeds_for_its_finalists(campaigns: Campaigns) -> None:
    sections: dict[str, Any] = {
        "space": {
            "model.sigma": {"log_uniform": [0.1, 2.0]},
            "model.interests": {"integer": [2, 3]},
        },
        "settings": {"train": {"epochs": 2}},
        "stopping": {"method": "none"},
        "resources": {"workers": 2, "cpus": 0.5},
        "finish": {"refit": "none"},
    }
    search: dict[str, Any] = {"method": "optuna", "trials": 2, "cost": "lookups", "seeds": 2, "finalists": 1}
    tune(campaigns.load("drawn", search=search, **sections))
    first = records_of(campaigns.load("drawn", search=search, **sections))
    assert [(record.point, record.seed, record.finalist) for record in first[:2]] == [(1, 0, False), (2, 0, False)]
    assert [(record.seed, record.finalist) for record in first[2:]] == [(1, True)]
    longer = campaigns.load("drawn", search=search | {"trials": 3}, **sections)
    tune(longer)
    records = records_of(longer)
    assert records[:3] == first, "what has ended stays as it is"
    assert not records[3].finalist
    assert records[3].point == 3
    assert {record.status for record in records} == {"finished"}
    assert all(not math.isnan(report["train/loss"]) for record in records for report in record.reports)
    assert_mlflow_has_the_same(longer)


@pytest.mark.ray
def test_trials_of_a_process_leave_no_trace_in_each_other(campaigns: Campaigns) -> None:
    """Every number of a trial is a function of its settings: the same whatever its process trained before."""
    settings = {"stopping": {"method": "none"}, "finish": {"refit": "none"}, "resources": {"concurrent": 1}}
    forth = campaigns.load("forth", space={"model.interests": {"grid": [1, 3]}}, **settings)
    back = campaigns.load("back", space={"model.interests": {"grid": [3, 1]}}, **settings)
    tune(forth)
    tune(back)
    one, two = ({r.values["model.interests"]: r for r in records_of(loaded)} for loaded in (forth, back))
    for interests in (1, 3):
        for first, second in zip(one[interests].reports, two[interests].reports, strict=True):
            timed = {"seconds", "train/samples_per_second", "train/wait_share"}
            assert {k: v for k, v in first.items() if k not in timed} == {
                k: v for k, v in second.items() if k not in timed
            }


@pytest.mark.ray
def test_a_space_that_cannot_be_searched_fails_before_anything_starts(campaigns: Campaigns) -> None:
    with pytest.raises(UserError, match=r"resources: a trial needs 9 x 1 CPUs"):
        tune(campaigns.load("large", resources={"workers": 9}))
    with pytest.raises(UserError, match=r"model\.interest\b.*model\.interests"):
        campaigns.load("typo", space={"model.interest": {"grid": [1]}})
    assert not (campaigns.load("large").folder / "trials").exists()

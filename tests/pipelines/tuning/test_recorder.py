"""Trials in MLflow: one run each whatever was interrupted, completed from the ledger, and nobody waits for a store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlflow
import pytest

from pipelines.config.schema import Config
from pipelines.tracking.run import Tracker, open_run
from pipelines.tracking.store import store_of
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.recorder import Recorder
from tests.pipelines.tuning.ledgers import trial

METRIC = "ndcg@20"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config.model_validate(
        {
            "name": "tiny",
            "home": str(tmp_path_factory.mktemp("home")),
            "data": {"events": {"path": "log.csv"}},
            "tracking": {"system_metrics": False},
        }
    )


@pytest.fixture
def parent(base: Config) -> Tracker:
    return open_run(base, "tune", "campaign")


def record(number: int, validations: int = 3, **changes: Any) -> TrialRecord:
    return replace(trial(number, [0.1 * n for n in range(1, validations + 1)], {"model.interests": number}), **changes)


def children(base: Config, parent: Tracker) -> dict[str, Any]:
    client = mlflow.MlflowClient(store_of(base))
    experiment = client.get_run(parent.run_id).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.run_id}'")
    found = {run.data.tags["mind.trial"]: run for run in runs}
    assert len(found) == len(runs), "a trial has one run"
    return found


def curve(base: Config, run: Any) -> list[float]:
    history = mlflow.MlflowClient(store_of(base)).get_metric_history(run.info.run_id, "validation/ndcg_at_20")
    return [point.value for point in sorted(history, key=lambda point: point.step)]


def test_each_trial_has_a_run_with_its_settings_curve_and_end(base: Config, parent: Tracker) -> None:
    with Recorder(parent, base, "campaign") as recorder:
        for number, status in ((1, "finished"), (2, "stopped"), (3, "failed")):
            recorder.started(record(number, 0, status="running"))
            recorder.reported(record(number, 1, status="running"))
            recorder.reported(record(number, 2, status="running"))
            recorder.ended(record(number, 2, status=status, reason="no memory" if status == "failed" else None))
    found = children(base, parent)
    assert {number: run.info.status for number, run in found.items()} == {
        "1": "FINISHED",
        "2": "KILLED",
        "3": "FAILED",
    }
    for number, run in found.items():
        assert curve(base, run) == pytest.approx([0.1, 0.2])
        assert run.data.params["model.interests"] == number
        assert run.info.run_name == f"00{number} K={number}"
        assert run.data.metrics["curve/validation ndcg_at_20"] == pytest.approx(0.2)
        assert run.data.metrics["validation/best/ndcg_at_20"] == pytest.approx(0.2)
    assert found["3"].data.tags["mind.failure"] == "no memory"


def test_the_next_start_goes_on_with_the_run_of_a_trial_and_doubles_no_step(base: Config, parent: Tracker) -> None:
    with Recorder(parent, base, "campaign") as recorder:
        recorder.reported(record(1, 2, status="running"))
    with Recorder(parent, base, "campaign") as recorder:  # the driver was killed: what is known comes again
        recorder.started(record(1, 0, status="running"))
        recorder.reported(record(1, 2, status="running"))
        recorder.ended(record(1, 3, status="finished"))
    (run,) = children(base, parent).values()
    assert curve(base, run) == pytest.approx([0.1, 0.2, 0.3])
    assert run.info.status == "FINISHED"


def test_what_the_store_lacks_of_ended_trials_is_made_up_for(base: Config, parent: Tracker) -> None:
    with Recorder(parent, base, "campaign") as recorder:
        recorder.reported(record(1, 1, status="running"))  # then killed, after the ledger had the end of 1 and 2
    with Recorder(parent, base, "campaign") as recorder:
        recorder.settle([record(1, 3, status="stopped"), record(2, 2, status="finished"), record(3, 1)])
    found = children(base, parent)
    assert {number: (run.info.status, len(curve(base, run))) for number, run in found.items()} == {
        "1": ("KILLED", 3),
        "2": ("FINISHED", 2),
        "3": ("FINISHED", 1),
    }


def test_a_store_that_fails_holds_nobody_up_and_the_next_start_completes_it(
    base: Config, parent: Tracker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionError("refused")

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.tuning.recorder.open_run", fails)
        with Recorder(parent, base, "campaign") as recorder:
            recorder.started(record(1, 0, status="running"))
            recorder.ended(record(1, 2, status="finished"))
            recorder.ended(record(2, 2, status="finished"))
    assert "MLflow lacks what 2 trials reported" in " ".join(capsys.readouterr().err.split())
    with Recorder(parent, base, "campaign") as recorder:
        recorder.settle([record(1, 2, status="finished"), record(2, 2, status="finished")])
    assert {len(curve(base, run)) for run in children(base, parent).values()} == {2}

"""kill -9 of whatever a campaign runs on, mid-campaign: no trial lost or doubled, and every number as without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipelines.config.load import resolved
from pipelines.tuning.ledger import Ledger, TrialRecord
from pipelines.tuning.load import Loaded, load_campaign
from tests.pipelines.planted import configure
from tests.pipelines.tuning.test_tune import assert_mlflow_has_the_same, assert_tune_saw_the_same

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPACE = {"model.interests": {"grid": [1, 2, 3, 4]}, "model.iterations": {"grid": [1, 2]}}
TIMED = {"seconds", "train/samples_per_second", "train/wait_share"}
WAIT_S = 240
REPOSITORY = Path(__file__).parents[2]


class Campaign:
    """`mind tune` as a process that can be killed."""

    def __init__(self, folder: Path, home: Path, log: Path, name: str, stopping: str = "none", **sections: Any):
        self.file = folder / f"{name}.yaml"
        base = folder / "base.yaml"
        config = configure(home, log, workers=1, epochs=8, patience=None)
        base.write_text(yaml.safe_dump(resolved(config)))
        values = {"campaign": name, "base": base.name, "space": SPACE, "stopping": {"method": stopping, "reduction": 2}}
        self.file.write_text(yaml.safe_dump({**values, "finish": {"refit": "none"}, **sections}, sort_keys=False))
        self.loaded: Loaded = load_campaign(self.file)
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "jobs.cli", "tune", str(self.file)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def finish(self) -> str:
        assert self.process is not None
        said, _ = self.process.communicate(timeout=WAIT_S)
        assert self.process.returncode == 0, said
        return said

    def wait_for_a_trial_under_way(self, ended: int) -> None:
        """Until `ended` trials have ended and another one has a checkpoint."""
        assert self.process is not None
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            records = Ledger(self.loaded.folder).read()
            done = {record.number for record in records if record.ended}
            begun = {int(place.parent.name) for place in self.loaded.folder.glob("checkpoints/*/step-*")}
            if len(done) >= ended and begun - done:
                return
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.05)
        raise AssertionError("no trial got under way")

    def start_and_kill(self, ended: int) -> None:
        """kill -9 of the driver, once `ended` trials have ended and another one has a checkpoint."""
        self.start()
        self.wait_for_a_trial_under_way(ended)
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def kill(self, wanted: Callable[[list[str]], bool]) -> None:
        """kill -9 of one process below `mind tune`, by its command line."""
        assert self.process is not None
        victims = [each for each in psutil.Process(self.process.pid).children(recursive=True) if wanted(_words(each))]
        assert victims, "no such process"
        os.kill(victims[0].pid, signal.SIGKILL)

    def records(self) -> list[TrialRecord]:
        return Ledger(self.loaded.folder).read()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def titled(name: str) -> Callable[[list[str]], bool]:
    """Ray names its processes ``ray::<actor>.<method>``."""
    return lambda words: bool(words) and words[0].startswith(f"ray::{name}")


def untimed(records: list[TrialRecord]) -> list[Any]:
    """All that a trial's record says, but for how fast it went."""
    return [
        replace(record, reports=tuple({k: v for k, v in report.items() if k not in TIMED} for report in record.reports))
        for record in records
    ]


@pytest.fixture(scope="module")
def undisturbed(planted_home: Path, planted_log: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    campaign = Campaign(tmp_path_factory.mktemp("undisturbed"), planted_home, planted_log, "undisturbed")
    campaign.start()
    campaign.finish()
    return campaign.records()


def assert_as_undisturbed(campaign: Campaign, undisturbed: list[TrialRecord], killed: bool = False) -> None:
    assert untimed(campaign.records()) == untimed(undisturbed)
    assert_mlflow_has_the_same(campaign.loaded)
    assert_tune_saw_the_same(campaign.loaded, killed)
    assert not list(campaign.loaded.folder.glob("checkpoints/*")), "of trials that have ended nothing is left"


def test_a_killed_driver_goes_on_by_the_same_command(
    planted_home: Path, planted_log: Path, tmp_path: Path, undisturbed: list[TrialRecord]
) -> None:
    campaign = Campaign(tmp_path, planted_home, planted_log, "driver")
    for ended in (1, 4):
        campaign.start_and_kill(ended)
    campaign.start()
    assert "had ended before" in campaign.finish()
    assert_as_undisturbed(campaign, undisturbed, killed=True)


def test_trials_that_go_on_under_asha_keep_what_was_decided(
    planted_home: Path, planted_log: Path, tmp_path: Path
) -> None:
    campaign = Campaign(tmp_path, planted_home, planted_log, "halving", stopping="asha")
    for ended in (1, 3):
        campaign.start_and_kill(ended)
    campaign.start()
    campaign.finish()
    records = campaign.records()
    assert [record.number for record in records] == list(range(1, 9))
    assert all(record.ended and record.status != "failed" for record in records)
    for record in records:
        assert [report["epoch"] for report in record.reports] == list(range(1, len(record.reports) + 1))
    assert_mlflow_has_the_same(campaign.loaded)
    assert_tune_saw_the_same(campaign.loaded, killed=True)


def test_ctrl_c_ends_a_campaign_in_one_line_and_it_goes_on(
    planted_home: Path, planted_log: Path, tmp_path: Path, undisturbed: list[TrialRecord]
) -> None:
    campaign = Campaign(tmp_path, planted_home, planted_log, "interrupted")
    campaign.start()
    campaign.wait_for_a_trial_under_way(1)
    assert campaign.process is not None
    campaign.process.send_signal(signal.SIGINT)
    said, _ = campaign.process.communicate(timeout=WAIT_S)
    assert campaign.process.returncode == 130, said
    assert said.splitlines()[-1] == "mind: interrupted"
    assert "Traceback" not in said
    campaign.start()
    campaign.finish()
    assert_as_undisturbed(campaign, undisturbed, killed=True)


def test_a_killed_process_of_a_trial_costs_no_more_than_a_restart(
    planted_home: Path, planted_log: Path, tmp_path: Path, undisturbed: list[TrialRecord]
) -> None:
    campaign = Campaign(tmp_path, planted_home, planted_log, "trial")
    campaign.start()
    campaign.wait_for_a_trial_under_way(2)
    campaign.kill(titled("ResourceTrainable"))
    campaign.finish()
    assert_as_undisturbed(campaign, undisturbed)


# ---------------------------------------------------------------- trials of two workers

TWO = {
    "space": {"model.interests": {"grid": [1, 2]}},
    "resources": {"workers": 2, "cpus": 0.5, "concurrent": 1},
}


@pytest.fixture(scope="module")
def undisturbed_two(
    planted_home: Path, planted_log: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[TrialRecord]:
    campaign = Campaign(tmp_path_factory.mktemp("undisturbed-two"), planted_home, planted_log, "undisturbed-two", **TWO)
    campaign.start()
    campaign.finish()
    return campaign.records()


@pytest.mark.parametrize(
    "victim",
    ["RayTrainWorker", "TrainController", "Exchange", "ResourceTrainable"],
    ids=["a worker", "its run of Ray Train", "its exchange with Tune", "its process in Tune"],
)
def test_a_killed_process_of_a_trial_of_two_workers_costs_no_more_than_a_restart(
    planted_home: Path, planted_log: Path, tmp_path: Path, undisturbed_two: list[TrialRecord], victim: str
) -> None:
    campaign = Campaign(tmp_path, planted_home, planted_log, f"two-{victim.lower()}", **TWO)
    campaign.start()
    campaign.wait_for_a_trial_under_way(1)
    campaign.kill(titled(victim))
    campaign.finish()
    assert_as_undisturbed(campaign, undisturbed_two)


def test_trials_of_two_workers_that_are_stopped_leave_room_for_the_next(
    planted_home: Path, planted_log: Path, tmp_path: Path
) -> None:
    space = {"model.interests": {"grid": [4, 3, 2, 1]}}
    campaign = Campaign(tmp_path, planted_home, planted_log, "two-stopped", "asha", **TWO | {"space": space})
    campaign.start_and_kill(1)
    campaign.start()
    campaign.finish()
    records = campaign.records()
    assert [record.number for record in records] == [1, 2, 3, 4]
    assert all(record.status in ("finished", "stopped") for record in records)
    assert "stopped" in {record.status for record in records}
    assert_mlflow_has_the_same(campaign.loaded)
    assert_tune_saw_the_same(campaign.loaded, killed=True)
    assert not list(campaign.loaded.folder.glob("checkpoints/*"))

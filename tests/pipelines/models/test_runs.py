"""Which run a training takes, and that nobody else takes it at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.models.runs import claimed_run, current_run, run_folder, write_state

DATASET: Any = SimpleNamespace(manifest=SimpleNamespace(fingerprint="f" * 64))  # all that a run asks of a dataset

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from pipelines.config.load import load_config
from tests.pipelines.models.test_runs import DATASET, claimed_run

with claimed_run(load_config(sys.argv[1]), DATASET):
    child = subprocess.Popen(["sleep", "60"])  # as Ray's processes, which may outlive a killed driver
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def config(conf: Path) -> Config:
    return load_config(conf)


def test_a_second_training_of_a_live_run_is_refused_in_one_line(config: Config) -> None:
    with claimed_run(config, DATASET) as state:
        with pytest.raises(UserError) as error, claimed_run(config, DATASET):
            pass
        assert state.name in str(error.value)
        assert str(run_folder(config, state.name)) in str(error.value)
        assert "\n" not in str(error.value)
        other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 1})})
        with claimed_run(other, DATASET) as beside:  # another run may train at the same time
            assert beside.name != state.name


def test_a_run_can_be_taken_again_after_it_ended_either_way(config: Config) -> None:
    with pytest.raises(ZeroDivisionError), claimed_run(config, DATASET) as state:
        raise ZeroDivisionError
    with claimed_run(config, DATASET) as again:
        assert again == state
        write_state(config, replace(again, finished=True))
    with claimed_run(config, DATASET) as following:
        assert following.name == f"{state.name}-2"


def test_a_lock_vanishes_with_its_process_even_where_a_child_lives_on(conf: Path, config: Config) -> None:
    root = Path(__file__).parents[3]
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(conf)], stdout=subprocess.PIPE, text=True, cwd=root)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(UserError), claimed_run(config, DATASET):
            pass
        holder.kill()
        holder.wait()
        os.kill(child, 0)
        with claimed_run(config, DATASET) as state:
            assert state == current_run(config, DATASET)
    finally:
        holder.stdout.close()
        os.kill(child, signal.SIGKILL)


def test_a_run_that_another_process_finished_meanwhile_is_not_trained_again(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = current_run(config, DATASET)
    stale = iter([first])  # read before the other one has finished

    def finished_in_between(*arguments: Any) -> Any:
        state = next(stale, None)
        write_state(config, replace(first, finished=True))
        return state or current_run(*arguments)

    monkeypatch.setattr("pipelines.models.runs.current_run", finished_in_between)
    with claimed_run(config, DATASET) as state:
        assert state.name == f"{first.name}-2"


def test_a_file_system_without_locks_is_said_and_does_not_stop_a_training(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with claimed_run(config, DATASET):
        pass
    assert "No locks available" in " ".join(capsys.readouterr().err.split())

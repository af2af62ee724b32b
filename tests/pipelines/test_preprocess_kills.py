"""kill -9 of a worker, and of the driver, in the middle of each pass: the same dataset in the end."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(240)]

JOB = """
import sys
import pipelines.preprocess.preprocess as stage
import pipelines.preprocess.exchange
from pipelines.config.schema import Config
stage.EVENTS_PER_PART = 20_000
pipelines.preprocess.exchange.UNSHUFFLED_EVENTS = 0  # a log of any size is worth an exchange
data = {"events": {"path": sys.argv[1]}, "min_item_events": 3}
stage.preprocess(Config.model_validate({"name": "log", "home": sys.argv[2], "data": data}))
"""
PASSES = ("read", "sort", "write")
OPERATORS = {"read": ("Clean the log",), "sort": ("shuffle", "Shuffle"), "write": ("Writing sequences",)}
FILES = 24


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600,000 events in 24 files: a pass takes long enough to be caught in its middle."""
    folder = tmp_path_factory.mktemp("log")
    rng = np.random.default_rng(0)
    for number in range(FILES):
        columns = {"user": rng.integers(0, 9000, 25_000), "item": rng.integers(0, 40_000, 25_000),
                   "time": rng.integers(0, 10**6, 25_000)}  # fmt: skip
        pq.write_table(pa.table(columns), folder / f"{number:02d}.parquet")
    return folder


@pytest.fixture(scope="module")
def expected(log: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("whole")
    return finished(start(log, home), home)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def start(log: Path, home: Path) -> subprocess.Popen[str]:
    token = home.with_name("token")
    token.write_text("0" * 64)
    environment = os.environ | {"RAY_AUTH_TOKEN_PATH": str(token)}
    command = [sys.executable, "-c", JOB, str(log), str(home)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finished(command: subprocess.Popen[str], home: Path) -> dict[str, str]:
    """Wait for the command; return what is in every file of the dataset."""
    _, complaint = command.communicate(timeout=120)
    assert command.returncode == 0, complaint
    folder = home / "datasets" / "log"
    files = [file for kind in ("*.parquet", "*.arrow") for file in folder.rglob(kind)]
    assert Dataset.open(folder).manifest.events == sum(Dataset.open(folder).vocabulary("users")["count"].to_pylist())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def recorded(home: Path, stage: str) -> list[Path]:
    return sorted((home / "datasets").glob(f".log.work-*/{stage}/*.json"))


def wait_for(command: subprocess.Popen[str], home: Path, stage: str) -> None:
    """Until a few tasks of the pass are done."""
    while len(recorded(home, stage)) < 3:
        assert command.poll() is None, f"ended before it could be killed in {stage}"
        time.sleep(0.002)


@pytest.mark.parametrize("stage", PASSES)
def test_a_killed_worker_is_replaced(stage: str, log: Path, home: Path, expected: dict[str, str]) -> None:
    command = start(log, home)
    wait_for(command, home, stage)
    killed = 0
    operators = OPERATORS[stage]
    while not killed:  # Ray's agents are called ray:: too; a worker bears the name of its task
        assert command.poll() is None, "no worker could be caught at work"
        for each in psutil.Process(command.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(name in each.cmdline()[0] for name in operators):
                    each.kill()
                    killed += 1
    assert finished(command, home) == expected


@pytest.mark.parametrize("stage", PASSES)
def test_a_killed_driver_leaves_nothing_torn_and_is_gone_on_with(
    stage: str, log: Path, home: Path, expected: dict[str, str]
) -> None:
    command = start(log, home)
    wait_for(command, home, stage)
    tree = psutil.Process(command.pid).children(recursive=True)
    command.send_signal(signal.SIGKILL)
    command.wait()
    done = {file: file.stat().st_mtime_ns for file in recorded(home, stage)}
    assert done
    with pytest.raises(UserError, match="no dataset"):
        Dataset.open(home / "datasets" / "log")

    again = start(log, home)
    while again.poll() is None and len(recorded(home, stage)) <= len(done):
        time.sleep(0.002)
    assert all(file.stat().st_mtime_ns == at for file, at in done.items() if file.exists()), "done twice"
    assert finished(again, home) == expected
    assert os.listdir(home / "datasets") == ["log"]
    for process in tree:  # Ray takes a minute to notice that its driver is gone
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()

"""The bed itself: hosts that share nothing, up and down without a trace, also after a crash."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.submitted import REPOSITORY
from tests.cluster.testbed import BedError, Testbed
from tests.cluster.testbed.network import can_isolate
from tests.cluster.testbed.nodes import init_process, wait_for
from tests.cluster.testbed.services import http_status

pytestmark = pytest.mark.cluster
isolated = pytest.mark.skipif(not can_isolate(), reason="network namespaces need root")


def begin(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """``up`` in a process of its own, that can be killed."""
    command = [sys.executable, "-m", "tests.cluster.testbed", "--folder", str(folder), "up", *options]
    return subprocess.Popen(command, cwd=REPOSITORY)


def processes_of(bed: Testbed) -> dict[psutil.Process, str]:
    """Everything on its nodes, by name."""
    found = {}
    for folder in bed.folder.iterdir() if bed.folder.exists() else ():
        if init := init_process(folder):
            for process in (init, *init.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found[process] = process.name()
    return found


@pytest.fixture
def another() -> Iterator[Testbed]:
    """A bed that is not up, in a folder that is not there."""
    bed = Testbed(f"/tmp/mind-bed-{os.getpid()}-b")
    yield bed
    bed.down()


@pytest.mark.parametrize("options", [pytest.param((), marks=isolated, id="isolated"), ("--plain",)], ids=str)
def test_a_bed_whose_making_is_killed_half_way_is_taken_down_without_a_trace(
    another: Testbed, options: tuple[str, ...]
) -> None:
    making = begin(another.folder, *options, "--workers", "1")
    wait_for(lambda: {"gcs_server", "postgres"} <= {*processes_of(another).values()}, "the bed does not get far", 60)
    making.kill()
    making.wait()
    processes = processes_of(another)
    with pytest.raises(BedError, match="take it down first"):
        another.up()

    another.down()

    assert another.leftovers() == []
    assert not another.folder.exists()
    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@isolated
def test_a_node_sees_no_file_of_another_and_writes_nowhere_else(bed: Testbed, two_workers: list[str]) -> None:
    first, second = two_workers
    bed.run_on(first, ["touch", "/tmp/mine", "/tmp/home/mine"])

    assert bed.run_on(first, ["ls", "/tmp/mine", "/tmp/home/mine"]).returncode == 0
    assert bed.run_on(second, ["ls", "/tmp/mine"]).returncode != 0
    assert bed.run_on(second, ["ls", "/tmp/home/mine"]).returncode != 0
    assert "Read-only" in bed.run_on(first, ["touch", str(REPOSITORY / "mine")]).stderr
    assert not (REPOSITORY / "mine").exists()


@pytest.mark.parametrize("service", ["s3", "dashboard"])
def test_nobody_is_served_without_credentials(bed: Testbed, service: str) -> None:
    path = {"s3": "/mind", "dashboard": "/api/jobs/"}[service]

    assert http_status(bed.state.url(service) + path) in (401, 403)
    assert bed.state.secrets["token"] not in (bed.folder / "head/spec.json").read_text()


def test_no_secret_stands_in_an_argument_or_a_log(bed: Testbed) -> None:
    secrets = [value for name, value in bed.state.secrets.items() if name != "key"]
    arguments = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    logs = [path.read_text(errors="replace") for path in bed.folder.glob("*/log")]

    assert len(logs) >= 6
    assert not [text for text in arguments + logs for secret in secrets if secret in text]

"""`mind up` and `mind down`: found while it lives, told in a line when it does not, one command at a time."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray

from pipelines.cluster import keeper, session
from pipelines.cluster.standing import (
    Standing,
    environment_digest,
    record_of,
    standing_ray,
    standing_to_use,
    write_record,
)
from pipelines.errors import UserError
from pipelines.storage.locks import exclusive


@pytest.fixture
def standing() -> Standing:
    """As if this very process kept a Ray of two CPUs."""
    return Standing(
        host=os.uname().nodename,
        address="127.0.0.1:1",
        pid=os.getpid(),
        began=psutil.Process().create_time(),
        cpus=2,
        token="0" * 64,
        ray=ray.__version__,
        environment=environment_digest(os.environ),
        template=None,
        imported="",
    )


def test_what_is_written_is_found_and_is_its_owners_alone(standing: Standing, tmp_path: Path) -> None:
    assert standing_ray(tmp_path) is None
    write_record(tmp_path, standing)
    assert standing_ray(tmp_path) == standing
    assert stat.S_IMODE(record_of(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE(record_of(tmp_path).parent.stat().st_mode) == 0o700


def test_one_that_has_gone_is_a_line_and_no_longer_on_record(
    standing: Standing, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, replace(standing, began=standing.began - 100))  # another process has its number now
    assert standing_ray(tmp_path) is None
    assert "has gone" in capfd.readouterr().err
    assert standing_ray(tmp_path) is None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "null", "\x00"])
def test_a_record_that_cannot_be_read_is_put_aside(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    record_of(tmp_path).parent.mkdir()
    record_of(tmp_path).write_text(text)
    assert standing_ray(tmp_path) is None
    assert "cannot be read" in capfd.readouterr().err
    assert not record_of(tmp_path).exists()


def test_a_record_of_another_release_is_read_as_far_as_it_goes(standing: Standing, tmp_path: Path) -> None:
    write_record(tmp_path, standing)
    record = json.loads(record_of(tmp_path).read_text())
    older = {name: value for name, value in record.items() if name not in ("template", "imported")}
    for told in (older, record | {"later": 1}):
        record_of(tmp_path).write_text(json.dumps(told))
        assert standing_ray(tmp_path) == standing


def test_one_of_another_machine_is_not_ours(standing: Standing, tmp_path: Path) -> None:
    write_record(tmp_path, replace(standing, host="another"))
    assert standing_ray(tmp_path) is None
    assert record_of(tmp_path).exists()


@pytest.mark.parametrize(
    ("change", "cpus", "exactly", "why"),
    [
        ({}, 3, False, "it has 2 CPUs, not 3"),
        ({}, 1, True, "it has 2 CPUs, not 1"),
        ({"ray": "1.0"}, 2, False, "it is Ray 1.0"),
        ({"environment": "x"}, 2, False, "its workers have another environment"),
        ({}, 2, False, None),
        ({}, 1, False, None),
    ],
)
def test_one_that_does_not_fit_is_left_alone(
    standing: Standing,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    change: dict[str, str],
    cpus: int,
    exactly: bool,
    why: str | None,
) -> None:
    write_record(tmp_path, replace(standing, **change))  # type: ignore[arg-type]
    with standing_to_use(tmp_path, cpus, exactly) as found:
        assert (found is None) == (why is not None)
    said = " ".join(capfd.readouterr().err.split())
    assert said == "" if why is None else why in said and "starts its own" in said


def test_two_commands_at_once_have_one_each(
    standing: Standing, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, standing)
    with standing_to_use(tmp_path, 2) as first, standing_to_use(tmp_path, 2) as second:
        assert first == standing
        assert second is None
    assert "another command is using it" in capfd.readouterr().err
    with standing_to_use(tmp_path, 2) as found:
        assert found == standing


def test_one_that_cannot_be_joined_is_a_line(
    standing: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    assert not session._join_standing(standing)  # nobody listens there
    assert "cannot be joined (" in capfd.readouterr().err


def test_a_second_mind_up_waits_for_nothing(tmp_path: Path) -> None:
    lock = record_of(tmp_path).with_name("starting.lock")
    with exclusive(lock, "held"), pytest.raises(UserError, match="another mind up is starting"):
        keeper.up(tmp_path)


def test_a_start_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper.sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="mind up: Ray does not start: exit code 1") as caught:
        keeper.up(tmp_path)
    assert "\n" not in str(caught.value)


def test_down_without_one_says_so(tmp_path: Path) -> None:
    assert not keeper.down(tmp_path)


JOIN = """
import os, sys, time
from pathlib import Path
import psutil, ray
from pipelines.cluster import keeper
from pipelines.cluster.session import ray_session
from pipelines.config.schema import RayConfig
home = Path(sys.argv[1])
standing, new = keeper.up(home, cpus=2)
try:
    assert new
    assert keeper.up(home) == (standing, False)
    for _ in range(2):
        with ray_session(RayConfig(num_cpus=2), home=home):
            assert ray.get_runtime_context().gcs_address == standing.address
            assert ray.get(ray.remote(num_cpus=1)(lambda: os.getpid()).remote()) != os.getpid()
        assert standing.alive()
    tree = psutil.Process(standing.pid).children(recursive=True)
finally:
    assert keeper.down(home)
psutil.wait_procs(tree, timeout=20)
left = [each for each in tree if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
assert not left, left
print("joined twice, and nothing is left")
"""


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_commands_join_the_ray_that_stays_and_down_leaves_nothing(tmp_path: Path) -> None:
    """In a process of its own: this one may have a session already."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", JOIN, str(tmp_path / "home")],
        env={**kept, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "joined twice, and nothing is left\n"
    assert not record_of(tmp_path / "home").exists()
    assert "starts its own" not in done.stderr

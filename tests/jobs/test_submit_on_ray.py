"""A small job on a real head that asks for a token."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from pipelines.preprocess.synthetic import generate

TOKEN = "0123456789abcdef" * 4
PORTS = ("--port", "--dashboard-port", "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port",
         "--runtime-env-agent-port", "--metrics-export-port", "--ray-client-server-port")  # fmt: skip

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: Ray's sockets lie below it."""
    folder = Path("/tmp") / f"mind-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def environment(place: Path) -> dict[str, str]:
    (place / "token").write_text(TOKEN)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_A", "MIND_"))}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(place / "token"),
    }


@pytest.fixture
def address(place: Path, environment: dict[str, str]) -> Iterator[str]:
    """Yield the address of a head with two CPUs."""
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    words = [word for name, port in ports.items() for word in (name, str(port))]
    options = ["--num-cpus", "2", "--object-store-memory", str(200 * 2**20), "--disable-usage-stats"]
    with (place / "head.log").open("w") as log:
        head = subprocess.Popen(
            ["ray", "start", "--head", "--block", "--temp-dir", str(place / "ray"), *options, *words],
            env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{ports['--dashboard-port']}"
    try:
        for _ in range(60):
            assert head.poll() is None, (place / "head.log").read_text()
            try:
                urlopen(Request(f"{url}/api/version", headers={"Authorization": f"Bearer {TOKEN}"}), timeout=5).close()
                break
            except (URLError, OSError):
                time.sleep(0.5)
        yield url
    finally:
        head.terminate()  # with --block it ends what it started
        head.wait(90)  # a busy machine takes its time to end all processes of a head


def test_a_stage_runs_on_a_head_as_it_does_here(place: Path, environment: dict[str, str], address: str) -> None:
    # given a log on storage that the node reaches
    generate(place / "log", events=600, users=60, items=50, clusters=4)
    (place / "tiny.yaml").write_text(
        f"name: tiny\nhome: {place}/home\ndata:\n  events: {{path: {place}/log/events, user: user_id, item: item_id}}\n"
    )

    def mind(*words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobs.cli", *words, "--address", address]
        told = environment | {"PYTHONPATH": str(Path(__file__).parents[2]), **changed}
        return subprocess.run(command, cwd=place, env=told, capture_output=True, text=True)

    # when preprocessing is submitted
    done = mind("submit", "preprocess", "tiny.yaml", "--submission-id", "first")
    # then its log has come, and its dataset is there
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 users, 50 items" in done.stdout
    assert "mind: first succeeded after " in done.stderr
    assert (place / "home/datasets/tiny/manifest.json").is_file()
    assert mind("jobs", "logs", "fir").stdout == done.stdout
    # and without the right token there is one line
    (place / "wrong").write_text("f" * 64)
    told = mind("jobs", "list", RAY_AUTH_TOKEN_PATH=str(place / "wrong"))
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "refuses the token" in told.stderr


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports

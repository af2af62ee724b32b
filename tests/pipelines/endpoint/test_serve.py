"""`mind serve` as a user starts it: over loopback, with an alias that moves under load, until a signal ends it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import yaml
from ray.exceptions import RayError

from pipelines.config.schema import Config
from pipelines.endpoint import serve
from pipelines.endpoint.serve import require_free
from pipelines.errors import UserError
from pipelines.models.answers import Answerer
from pipelines.models.artifact import load_model
from tests.pipelines.small_model import save_small

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

START_S = 240  # on a machine that others use too


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@dataclass
class Server:
    """A running `mind serve`, its settings and its two models, of which the first is the champion."""

    process: subprocess.Popen[str]
    port: int
    home: Path
    folders: list[Path]

    def call(self, body: bytes, path: str = "/recommend", method: str = "POST", **headers: str) -> tuple[int, Any, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def ask(self, **fields: Any) -> dict[str, Any]:
        status, content, _ = self.call(json.dumps(fields).encode())
        assert status == 200, content
        return dict(json.loads(content))

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def move_alias(self, version: str) -> None:
        client = mlflow.MlflowClient(f"sqlite:///{self.home}/mlflow.db", f"sqlite:///{self.home}/mlflow.db")
        client.set_registered_model_alias("tiny", "champion", version)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    folders = [save_small(home / "models" / f"tiny-default-{seed}", seed=seed) for seed in (0, 1)]
    uri = f"sqlite:///{home}/mlflow.db"
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("tiny")
    for folder in folders:
        client.create_model_version("tiny", f"file://{folder}", tags={"mind.model": str(folder)})
    client.set_registered_model_alias("tiny", "champion", "1")
    port = free_port()
    conf = home / "tiny.yaml"
    settings = {"name": "tiny", "home": str(home), "data": {"events": {"path": "log.csv"}}, "ray": {"num_cpus": 2},
                "serve": {"port": port, "poll_s": 0.5, "max_body": 100_000}}  # fmt: skip
    conf.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "jobs.cli", "serve", str(conf)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    server = Server(process, port, home, folders)
    try:
        wait_until_ready(server)
        yield server
    finally:
        process.kill()
        process.wait()


def wait_until_ready(server: Server) -> None:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends:
        if server.process.poll() is not None:
            assert server.process.stdout is not None
            pytest.fail(server.process.stdout.read())
        try:
            if server.call(b"", "/ready", "GET")[0] == 200:
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"not ready after {START_S} s")


def test_it_answers_as_the_model_does_in_this_process(server: Server) -> None:
    answerer = Answerer(load_model(server.folders[0]))
    for history in ([101], [140, 105, 101], []):
        answer = server.ask(history=history, n=7)
        expected = answerer.answer([answerer.reader.read({"history": history, "n": 7})])[0]
        assert [item["id"] for item in answer["items"]] == expected.ids
        assert [item["score"] for item in answer["items"]] == pytest.approx(expected.scores, abs=1e-6)
        assert (answer["model"], answer["version"]) == ("small-0", "1")


def test_it_listens_to_this_machine_alone(server: Server) -> None:
    listening = {each.laddr.ip for process in server.children() for each in process.net_connections("inet")
                 if each.status == "LISTEN" and each.laddr.port == server.port}  # fmt: skip
    assert listening == {"127.0.0.1"}


def test_hostile_requests_are_refused_and_cost_nothing(server: Server) -> None:
    before = sum(process.memory_info().rss for process in server.children())
    bodies = [b"", b"{", b"[" * 10_000, b'{"history":' + b"[" * 10_000 + b"]" * 10_000 + b"}", b'{"history": [NaN]}',
              b'{"history": [1], "n": 1000000000}', b'{"history": [1], "n": -1}', b'{"history": [1], "n": 0}',
              b'{"history": [1], "nn": 1}', b'{"history": [1], "profile": {"no": 1}}',
              json.dumps({"history": [101] * 100_000}).encode(), b" " * 50_000_000]  # fmt: skip
    for body in bodies:
        started = time.monotonic()
        try:
            status, content, _ = server.call(body)
        except (BrokenPipeError, ConnectionResetError):  # refused before it was sent to its end
            continue
        assert 400 <= status < 500, content
        assert b"\n" not in content
        assert time.monotonic() - started < 10
    assert sum(process.memory_info().rss for process in server.children()) - before < 300 * 2**20
    assert server.ask(history=[101])["items"]


def test_the_answer_has_the_id_of_the_request(server: Server) -> None:
    status, content, headers = server.call(b'{"history": []}', **{"X-Request-ID": "given-1"})
    assert status == 200
    assert headers.get_all("x-request-id") == ["given-1"]
    assert json.loads(content)["request_id"] == "given-1"


def test_metrics_count_requests_and_have_ray_serves_own(server: Server) -> None:
    ends = time.monotonic() + 90  # Ray exports them every few seconds
    wanted = ("ray_mind_requests", "ray_mind_latency_ms_bucket", "ray_mind_model", "ray_serve_")
    while time.monotonic() < ends:
        server.ask(history=[101])
        text = server.call(b"", "/metrics", "GET")[1].decode()
        if all(name in text for name in wanted):
            return
        time.sleep(1)
    pytest.fail(str([name for name in wanted if name not in text]))


def test_the_alias_moves_under_load_and_no_request_is_lost(server: Server) -> None:
    models, failed, ended = [], [], threading.Event()

    def client() -> None:
        while not ended.is_set():
            try:
                answer = server.ask(history=[101, 105], n=3)
                models.append((answer["model"], answer["version"], tuple(item["id"] for item in answer["items"])))
            except Exception as error:
                failed.append(error)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    server.move_alias("2")
    ends = time.monotonic() + 60
    while time.monotonic() < ends and (not models or models[-1][1] != "2"):
        time.sleep(0.1)
    time.sleep(0.5)
    ended.set()
    for each in clients:
        each.join()
    assert not failed
    assert {version for _, version, _ in models} <= {"1", "2"}
    assert models[-1][:2] == ("small-1", "2")
    assert len(set(models)) <= 2  # a list is of the model that it names


def test_a_second_server_on_the_port_is_refused(server: Server) -> None:
    with pytest.raises(UserError, match=f"serve.port={server.port}: cannot be listened at"):
        require_free("127.0.0.1", server.port)
    with pytest.raises(UserError, match=r"192\.0\.2\.1"):
        require_free("192.0.2.1", server.port)


def test_a_signal_ends_it_and_nothing_stays(server: Server) -> None:
    children = server.children()
    assert children
    os.kill(server.process.pid, signal.SIGTERM)
    output, _ = server.process.communicate(timeout=120)
    assert server.process.returncode == 0, output
    assert "Traceback" not in output
    assert output.splitlines()[-1] == "Stopped"
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    require_free("127.0.0.1", server.port)


def test_a_tampered_model_is_said_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_small(tmp_path / "small")
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    raw = {"name": "tiny", "home": str(tmp_path), "data": {"events": {"path": "x"}}, "serve": {"port": free_port()}}

    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("Ray must not start")

    monkeypatch.setattr(serve, "ray_session", started)
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        serve.serve_model(Config.model_validate(raw), str(folder))


def test_a_model_that_is_not_there_is_a_line_and_starts_nothing(tmp_path: Path) -> None:
    conf = tmp_path / "tiny.yaml"
    conf.write_text(yaml.safe_dump({"name": "tiny", "home": str(tmp_path), "data": {"events": {"path": "log.csv"}}}))
    command = [sys.executable, "-m", "jobs.cli", "serve", str(conf), "--model", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("mind: error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("error", [RayError("The actor died"), TimeoutError("60 s")])
def test_a_proxy_that_does_not_start_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    events = {"path": "log", "user": "u", "item": "i", "time": "t"}
    config = Config.model_validate({"name": "shop", "data": {"events": events}})

    def died(**_: Any) -> None:
        raise error

    monkeypatch.setattr(serve.serve, "start", died)
    with pytest.raises(UserError, match="proxy did not start"):
        serve._start(config, threading.Event())

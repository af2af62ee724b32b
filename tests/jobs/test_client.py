import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from jobs import client
from jobs.client import ATTEMPT, Cluster, Job, LostConnection, Patience, Submission, UnknownJob
from pipelines.errors import UserError
from tests.jobs.fake_head import FakeHead


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def patience(self, limit_s: float = 300.0) -> Patience:
        return Patience(self.said.append, limit_s, self.sleep, lambda: self.now)


def submission(attempt: str = "one", job_id: str = "job-1") -> Submission:
    return Submission(job_id, "python x.py", {"A": "b"}, {ATTEMPT: attempt}, {"entrypoint_num_cpus": 0.1})


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/x.py").write_text("1")
    return str(tmp_path / "package")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_listens() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LostConnection) as lost:
        Cluster(address)
    assert str(lost.value) == (
        f"{address}: Connection refused; --address must be the dashboard of the cluster's head, e.g. http://HEAD:8265"
    )


def test_an_unknown_host_is_named_as_such() -> None:
    with pytest.raises(LostConnection, match=r"^http://no-such-host\.invalid:8265: .*--address must be"):
        Cluster("http://no-such-host.invalid:8265")


def test_a_head_that_says_nothing_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", (1.0, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(LostConnection, match="no answer"):
        Cluster(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize(
    "answer", [(404, b"not found"), (200, b"<html>another server</html>"), (200, b"{}"), (500, b"")]
)
def test_another_server_is_not_rays_dashboard(answer: tuple[int, bytes]) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer[0])
            self.end_headers()
            self.wfile.write(answer[1])

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Other)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(UserError, match="answers, but not as Ray's dashboard does; --address must be"):
            Cluster(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "asks for a token; set RAY_AUTH_MODE=token and give the cluster's by RAY_AUTH_TOKEN_PATH (a file) or "
              "RAY_AUTH_TOKEN"),
        (403, "refuses the token; give the cluster's by RAY_AUTH_TOKEN_PATH (a file) or RAY_AUTH_TOKEN"),
    ],
)  # fmt: skip
def test_a_missing_or_wrong_token_is_one_line(head: FakeHead, status: int, message: str) -> None:
    head.refusals = [status]
    with pytest.raises(UserError) as refused:
        Cluster(head.address)
    assert str(refused.value) == f"{head.address}: {message}"


def test_the_address_wins_over_rays_own_variables(head: FakeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert Cluster(head.address).jobs() == []


def test_a_job_is_sent_with_its_package(head: FakeHead, folder: str) -> None:
    Cluster(head.address).submit(submission(), folder, Clock().patience())
    (sent,) = head.sent
    assert (sent["submission_id"], sent["entrypoint"], sent["entrypoint_num_cpus"]) == ("job-1", "python x.py", 0.1)
    assert sent["runtime_env"]["env_vars"] == {"A": "b"}
    assert sent["runtime_env"]["working_dir"] in {f"gcs://{name}" for name in head.packages}


def test_a_lost_answer_to_a_submission_is_looked_up_and_not_sent_again(head: FakeHead, folder: str) -> None:
    head.lost_answers = 1
    clock = Clock()
    Cluster(head.address).submit(submission(), folder, clock.patience())
    assert len(head.sent) == 1
    assert list(head.jobs) == ["job-1"]
    assert "trying again" in clock.said[0]


def test_a_head_that_is_away_for_a_while_is_asked_again(head: FakeHead, folder: str) -> None:
    cluster, clock = Cluster(head.address), Clock()
    head.refusals = [503, 502, 504]
    cluster.submit(submission(), folder, clock.patience())
    assert list(head.jobs) == ["job-1"]
    assert clock.said[-1] == "connected again"


def test_an_id_that_was_used_before_is_refused(head: FakeHead, folder: str) -> None:
    head.add("job-1", metadata={ATTEMPT: "another"})
    with pytest.raises(UserError, match="--submission-id job-1: the cluster had such a job already"):
        Cluster(head.address).submit(submission(), folder, Clock().patience())


def test_jobs_are_newest_first_and_found_by_how_they_begin(head: FakeHead) -> None:
    for name in ("mind-a-1", "mind-a-2", "mind-b-1"):
        head.add(name)
    cluster = Cluster(head.address)
    assert [job.id for job in cluster.jobs()] == ["mind-b-1", "mind-a-2", "mind-a-1"]
    assert cluster.find("mind-b").id == "mind-b-1"
    assert cluster.find("mind-a-1").id == "mind-a-1"
    with pytest.raises(UserError, match=r"^mind-a: 2 jobs begin so: mind-a-2, mind-a-1$"):
        cluster.find("mind-a")
    with pytest.raises(UnknownJob, match=r"^nope: .* has no such job; see: mind jobs list --all$"):
        cluster.find("nope")


def test_an_id_that_begins_another_means_itself(head: FakeHead) -> None:
    head.add("a")
    head.add("ab")
    assert Cluster(head.address).find("a").id == "a"


def test_a_lost_connection_is_sought_with_growing_waits_for_a_bounded_time() -> None:
    clock = Clock()
    tries: list[float] = []

    def away() -> None:
        tries.append(clock.now)
        raise LostConnection("away")

    with pytest.raises(LostConnection):
        clock.patience(limit_s=60).call(away)
    assert tries == [0, 1, 3, 7, 15, 30, 45, 60]
    assert clock.said == ["away; trying again for 60 s"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Job entrypoint command failed with exit code 2, last available logs (truncated to 20,000 chars):\n"
         "Reading ...\nmind: error: log.csv: no column 'user'\n(raylet) shutting down\n", "log.csv: no column 'user'"),
        ("Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"
         "Traceback (most recent call last):\n  File \"x.py\"\nZeroDivisionError: bug\n", "ZeroDivisionError: bug"),
        ("Job entrypoint command failed with exit code 1. No logs available.",
         "Job entrypoint command failed with exit code 1. No logs available."),
        ("Unexpected error: the node died\nTraceback\n  more", "Unexpected error: the node died"),
        ("mind: error: s3://key:s3cret@b/log: no such file", "s3://***@b/log: no such file"),
        ("", "no reason given"),
        ("x" * 1000, "x" * 397 + "..."),
    ],
)  # fmt: skip
def test_the_reason_of_a_failure_is_one_line(message: str, reason: str) -> None:
    assert Job("a", "FAILED", "python x.py", message).reason == reason

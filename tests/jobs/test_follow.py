import pytest

from jobs import client
from jobs.client import Cluster, Job, LostConnection
from jobs.follow import STOPPED, elapsed, exit_code, follow, verdict
from tests.jobs.fake_head import FakeHead
from tests.jobs.test_client import Clock


def followed(head: FakeHead, clock: Clock) -> tuple[str, Job]:
    written: list[str] = []
    job = follow(Cluster(head.address), "job-1", written.append, clock.said.append, clock.patience(), clock.sleep)
    return "".join(written), job


def test_a_log_is_printed_to_the_end_of_the_job(head: FakeHead) -> None:
    head.add("job-1")
    head.logs = ["one\ntwo\n", "thr", "ee\n"]
    text, job = followed(head, Clock())
    assert text == "one\ntwo\nthree\n"
    assert job.status == "SUCCEEDED"


def test_a_broken_connection_leaves_no_gap_and_no_repeat(head: FakeHead) -> None:
    # given a log that breaks off after one piece, after none, and after three
    head.add("job-1")
    head.logs = ["a\n", "b", "c\nd\n", "e\n"]
    head.break_after = [1, 0, 3]
    clock = Clock()
    # when it is followed
    text, job = followed(head, clock)
    # then it is whole
    assert text == "a\nbc\nd\ne\n"
    assert job.is_over
    assert any("trying again" in line for line in clock.said)


def test_a_log_in_other_pieces_than_before_the_break_is_whole_as_well(head: FakeHead) -> None:
    head.add("job-1")
    head.logs = ["abc", "def"]
    head.break_after = [1]

    class Recut(list[str]):
        """Sent in one piece from the second time on."""

        def __getitem__(self, key: object) -> list[str]:  # type: ignore[override]
            return ["abc"] if key == slice(None, 1) else ["abcd", "ef"]

    head.logs = Recut(head.logs)
    assert followed(head, Clock())[0] == "abcdef"


def test_a_head_that_stays_away_ends_it(head: FakeHead) -> None:
    head.add("job-1")
    head.break_after = [0] * 100
    with pytest.raises(LostConnection):
        followed(head, Clock())


def test_silence_is_asked_about(head: FakeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a job that waits for resources, and says nothing
    monkeypatch.setattr(client, "IDLE_S", 0.05)
    head.add("job-1", status="PENDING", message="waiting for CPUs")
    cluster, clock = Cluster(head.address), Clock()
    asked: list[str] = []
    information = cluster.job

    def job(job_id: str) -> Job:
        asked.append(job_id)
        if len(asked) == 3:
            head.jobs[job_id]["status"] = "FAILED"
        return information(job_id)

    monkeypatch.setattr(cluster, "job", job)
    monkeypatch.setattr(cluster, "tail", lambda _: iter([None, None, None]))
    # when it is followed
    ended = follow(cluster, "job-1", lambda _: None, clock.said.append, clock.patience(), clock.sleep)
    # then it is said once why, and the end is seen
    assert clock.said == ["job-1 waits: waiting for CPUs"]
    assert ended.status == "FAILED"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("STOPPED", None, STOPPED), ("FAILED", 2, 2), ("FAILED", None, 1), ("FAILED", -9, 137)],
)
def test_exit_codes(status: str, code: int | None, expected: int) -> None:
    assert exit_code(Job("a", status, "", exit_code=code)) == expected


def test_the_end_is_told_in_one_line() -> None:
    failed = Job("a", "FAILED", "", "mind: error: no", started=1.0, ended=3.0)
    assert verdict(failed) == "a failed after 0:02: no"
    assert verdict(Job("a", "STOPPED", "", started=1.0, ended=63.0)) == "a was stopped after 1:02"
    assert elapsed(3723.0) == "1:02:03"

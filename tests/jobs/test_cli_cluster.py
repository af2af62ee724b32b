"""``mind submit`` and ``mind jobs`` as a person types them, against a head that is not there or a fake one."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from jobs import cli_cluster
from jobs.cli import app
from jobs.client import STAGE, Cluster
from jobs.submit import STAGES
from tests.jobs.fake_head import FakeHead


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def line(result: Any) -> str:
    """The one line of an error."""
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    return str(result.stderr).removeprefix("mind: error: ").strip()


def test_a_stage_is_sent_followed_and_ends_as_the_job_ends(here: Path, head: FakeHead) -> None:
    head.logs = ["Training ...\n", "done\n"]
    result = run("submit", "train", "conf/tiny.yaml", "-s", "train.epochs=2", "--address", head.address)
    assert result.exit_code == 0, result.output
    (sent,) = head.sent
    assert sent["entrypoint"] == "python -m jobs.cli train conf/tiny.yaml -s train.epochs=2"
    assert result.stdout == "Training ...\ndone\n"
    assert f"mind: submitted {sent['submission_id']}" in result.stderr


def test_a_failed_job_ends_with_its_reason_and_exit_code(here: Path, head: FakeHead) -> None:
    head.status, head.exit_code = "FAILED", 2
    head.message = "failed, last available logs:\nmind: error: log.csv: no column 'user'\n"
    result = run("submit", "preprocess", "conf/tiny.yaml", "--address", head.address, "--submission-id", "p")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("mind: error: p failed after ")
    assert result.stderr.endswith(": log.csv: no column 'user'\n")


def test_detached_it_prints_the_id_and_what_to_do_with_it(here: Path, head: FakeHead) -> None:
    result = run("submit", "train", "conf/tiny.yaml", "--detach", "--address", head.address, "--submission-id", "t")
    assert (result.exit_code, result.stdout) == (0, "t\n")
    assert f"mind: follow it: mind jobs logs t --follow --address {head.address}" in result.stderr
    assert f"mind: stop it: mind jobs stop t --address {head.address}" in result.stderr


def test_ctrl_c_leaves_the_job_running_and_says_so(here: Path, head: FakeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Cluster, "tail", interrupted)
    result = run("submit", "train", "conf/tiny.yaml", "--address", head.address, "--submission-id", "t")
    assert result.exit_code == 130
    assert "mind: t goes on; follow it: mind jobs logs t --follow" in result.stderr
    assert head.jobs["t"]["status"] == "RUNNING"


def test_nothing_that_is_sent_or_printed_has_a_secret_of_the_local_environment(
    here: Path, head: FakeHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given secrets in the environment of whoever submits
    planted = {
        name: f"planted-{name}" for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD")
    }
    for name, value in {**planted, "AWS_ENDPOINT_URL": "http://s3:9000"}.items():
        monkeypatch.setenv(name, value)
    # when a job is submitted, with whatever is forwarded
    result = run("submit", "train", "conf/tiny.yaml", "--address", head.address, "--env", "LANG=C", "--metadata", "a=b")
    assert result.exit_code == 0, result.output
    # then none is in what the dashboard shows, in the package, or in the output
    (package,) = head.packages.values()
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert "jobs/cli.py" in contents
    assert b"s3://bucket/home" in contents["conf/tiny.yaml"]
    assert head.sent[0]["runtime_env"]["env_vars"]["AWS_ENDPOINT_URL"] == "http://s3:9000"
    everything = [str(head.sent), result.output, *contents, *(text.decode() for text in contents.values())]
    assert not [value for value in planted.values() for text in everything if value in text]


def test_the_stages_options_are_checked_by_the_stage_before_anything_is_sent(here: Path, head: FakeHead) -> None:
    result = run("submit", "train", "conf/tiny.yaml", "--epoch", 3, "--address", head.address)
    assert result.exit_code == 2
    assert "No such option: --epoch" in result.stderr
    assert "Missing argument 'CONF'" in run("submit", "train", "--address", head.address).stderr
    missing = run("submit", "train", "conf/no.yaml", "--address", head.address)
    assert line(missing) == "conf/no.yaml: no such configuration file"
    assert not head.sent


def test_no_option_of_submit_hides_one_of_a_stage() -> None:
    root = typer.main.get_command(app)
    commands: dict[str, Any] = root.commands  # type: ignore[attr-defined]
    own = {name for option in commands["submit"].params for name in option.opts}
    of_all = {"--help", "--json", "--quiet", "-q"}  # after a stage they mean submit's own result: the job
    for stage in STAGES:
        if stage in commands:
            assert not own & {name for option in commands[stage].params for name in option.opts} - of_all, stage


def test_what_is_no_stage_is_refused(here: Path) -> None:
    assert line(run("submit", "ui", "conf/tiny.yaml")).startswith("submit ui: must begin with a stage, one of preproc")
    assert line(run("submit", "--set", "a=b", "train", "conf/tiny.yaml")).startswith("submit --set: must begin with a")


def test_an_oversized_tree_is_one_line(here: Path, head: FakeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.package.require_small.__defaults__", (1000,))
    told = line(run("submit", "train", "conf/tiny.yaml", "--address", head.address))
    assert told.startswith("the working tree is too large to send, ")
    assert not head.packages


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("10.0.0.1:6379", "--address 10.0.0.1:6379: must be the dashboard of the cluster's head, e.g. http://HEAD:8265"),
        ("ray://10.0.0.1:10001", "--address ray://10.0.0.1:10001: must be the dashboard of the cluster's head, e.g. "
                                 "http://HEAD:8265"),
        ("http://ann:pw@host:8265", "--address http://***@host:8265: give the token by RAY_AUTH_TOKEN_PATH (a file), "
                                    "not in the URL"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_one(here: Path, address: str, told: str) -> None:
    assert line(run("jobs", "list", "--address", address)) == told


def test_the_address_may_come_from_rays_variables(here: Path, head: FakeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert line(run("jobs", "list")).startswith("no cluster given: --address http://HEAD:8265, or RAY_API_SERVER_ADDR")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert line(run("jobs", "list")).startswith("no cluster given")
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    assert run("jobs", "list").exit_code == 0
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", head.address)
    assert run("jobs", "list").exit_code == 0


def test_the_list_is_of_our_jobs_newest_first_with_whole_ids(here: Path, head: FakeHead) -> None:
    head.add("mind-preprocess-a-long-name-20261125-153012-ab12", metadata={STAGE: "preprocess"})
    head.add("raysubmit_x")
    head.add("mind-train-a-long-name-20261125-153012-ab12", metadata={STAGE: "train"})
    shown = run("jobs", "list", "--address", head.address).stdout.splitlines()
    assert shown[0].split() == ["id", "stage", "status", "started", "duration", "entrypoint"]
    assert [row.split()[0] for row in shown[1:]] == [
        "mind-train-a-long-name-20261125-153012-ab12", "mind-preprocess-a-long-name-20261125-153012-ab12",
    ]  # fmt: skip
    assert "raysubmit_x" in run("jobs", "list", "--all", "--address", head.address).stdout


def test_status_shows_what_is_known_of_a_job(here: Path, head: FakeHead) -> None:
    head.add("job-1", metadata={STAGE: "train", "mind_attempt": "x", "ticket": "42"}, status="FAILED",
             message="mind: error: no", driver_exit_code=2)  # fmt: skip
    rows = run("jobs", "status", "job", "--address", head.address).stdout.splitlines()
    shown = {row[:11].strip(): row[12:] for row in rows}
    assert (shown["id"], shown["stage"], shown["ticket"]) == ("job-1", "train", "42")
    assert (shown["status"], shown["reason"], shown["exit code"]) == ("FAILED", "no", "2")
    assert "attempt" not in shown


def test_logs_are_printed_or_followed(here: Path, head: FakeHead) -> None:
    head.add("job-1")
    head.logs = ["one\n", "two\n"]
    assert run("jobs", "logs", "job", "--address", head.address).stdout == "one\ntwo\n"
    assert head.jobs["job-1"]["status"] == "RUNNING"
    assert run("jobs", "logs", "job", "--follow", "--address", head.address).stdout == "one\ntwo\n"


def test_stop_waits_for_the_end(here: Path, head: FakeHead) -> None:
    head.add("job-1")
    result = run("jobs", "stop", "job", "--address", head.address)
    assert (result.exit_code, head.jobs["job-1"]["status"]) == (0, "STOPPED")
    assert result.stderr.startswith("mind: job-1 was stopped after ")
    assert run("jobs", "stop", "job", "--address", head.address).stderr == "mind: job-1 is over: STOPPED\n"


def test_a_job_that_does_not_end_is_told(here: Path, head: FakeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_cluster, "STOP_WAIT_S", 0.0)
    monkeypatch.setattr(Cluster, "stop", lambda *_: True)
    head.add("job-1")
    assert line(run("jobs", "stop", "job", "--address", head.address)).startswith(
        "job-1: still RUNNING after 0 s; see:"
    )
    assert run("jobs", "stop", "job", "--no-wait", "--address", head.address).stderr == "mind: asked job-1 to stop\n"


@pytest.mark.parametrize("command", ["status", "logs", "stop"])
def test_an_unknown_id_is_one_line(here: Path, head: FakeHead, command: str) -> None:
    told = line(run("jobs", command, "nope", "--address", head.address))
    assert told == f"nope: {head.address} has no such job; see: mind jobs list --all"

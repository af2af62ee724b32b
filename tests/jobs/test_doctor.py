"""mind doctor: one block of text, without secrets, in which what is in the way stands out."""

import json
import re
import socket
from pathlib import Path

import pytest

from jobs.doctor import OPTIONAL, as_lines, diagnose
from tests.jobs.test_cli import run


def test_a_block_of_text_says_versions_machine_and_reach(tmp_path: Path) -> None:
    done = run("doctor", "--home", tmp_path)
    assert done.exit_code == 0
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names[:11] == ["python", "system", "packages", "cores", "memory", "home", "temporary", "/dev/shm", "GPU",
                          "Ray", "MLflow"]  # fmt: skip
    assert str(tmp_path / "mlflow.db") in done.stdout


def test_json_says_the_same(tmp_path: Path) -> None:
    found = json.loads(run("doctor", "--home", tmp_path, "--json").stdout)["result"]
    assert found["home"] == str(tmp_path)
    assert found["packages"]["ray"].startswith("2.")
    assert found["cores"] >= 1


def test_no_secret_is_shown(tmp_path: Path) -> None:
    environment = {"MLFLOW_TRACKING_URI": "http://ann:pw@127.0.0.1:9/", "RAY_AUTH_TOKEN": "t0ken"}
    text = "\n".join(as_lines(diagnose(tmp_path, environment["MLFLOW_TRACKING_URI"], environment)))
    assert "pw" not in text.replace("pwd", "")
    assert "t0ken" not in text


def test_who_does_not_answer_is_a_problem_and_who_does_is_none(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = diagnose(tmp_path, f"http://127.0.0.1:{port}", {"RAY_ADDRESS": f"127.0.0.1:{port}"})
        assert (found.mlflow.reached, found.ray.reached) == (True, True)
    gone = diagnose(tmp_path, f"http://127.0.0.1:{port}", {"RAY_ADDRESS": f"127.0.0.1:{port}"})
    assert [line.split(":")[0] for line in gone.problems][-2:] == ["Ray", "MLflow"]
    assert diagnose(None, None, {}).mlflow.reached is False


def test_little_disk_and_a_missing_package_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def none_of(name: str) -> str:
        if name in ("mlflow", *OPTIONAL):
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("jobs.doctor.version", none_of)
    monkeypatch.setattr("jobs.doctor._free", lambda path: 2**20)
    found = diagnose(tmp_path, None, {})
    assert "mlflow is not installed: pip install mind-retrieval" in found.problems
    assert any("Ray's temporary folder" in line for line in found.problems)
    assert found.packages["mlflow"] is None


def test_a_home_that_cannot_be_is_said_and_nothing_breaks() -> None:
    done = run("doctor", "--home", "ftp://x/y")
    assert done.exit_code == 0
    # the column is as wide as the longest variable that is set, and Ray sets some in its process
    assert re.search(r"^home +unknown", done.stdout, re.MULTILINE)

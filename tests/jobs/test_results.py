"""--json: one document of one schema a command, and nothing else on standard output."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from pydantic import TypeAdapter

from jobs.cli import app
from jobs.client import Job
from jobs.doctor import Diagnosis, Reach
from jobs.result_command import ResultCommand
from jobs.results import RESULTS, Lists, document, lists_file, lists_in, result_type
from pipelines.config.show_manual import chosen
from pipelines.plan.machine import Machine
from pipelines.training.train import TrainOutcome
from tests.jobs.test_cli import install, run


def commands(group: Any = None, prefix: str = "mind") -> dict[str, Any]:
    found = {}
    for name, command in (group or typer.main.get_command(app)).commands.items():
        found |= (
            commands(command, f"{prefix} {name}") if hasattr(command, "commands") else {f"{prefix} {name}": command}
        )
    return found


def test_every_command_with_a_result_has_a_type_and_every_type_a_command() -> None:
    with_results = {name for name, command in commands().items() if isinstance(command, ResultCommand)}
    assert with_results == set(RESULTS)
    assert set(commands()) - with_results == {"mind ui", "mind serve", "mind jobs logs"}  # these run on, or print text


@pytest.mark.parametrize("command", list(RESULTS))
def test_every_result_has_a_schema_with_words_for_its_fields(command: str) -> None:
    schema = TypeAdapter(result_type(command)).json_schema()
    assert schema["properties"]
    assert result_type(command).__doc__


RETURNED: dict[str, Any] = {
    "mind train": TrainOutcome(Path("m"), "r", {"validation/recall@20": 0.5}, ["a doubt"]),
    "mind report": Path("report.html"),
    "mind recommend": Lists(None, [{"user": 1, "rank": 1, "id": "x"}]),
    "mind pipeline": [SimpleNamespace(name="train", output=Path("m"), seconds=None, figures={"users": 3})],
    "mind init": (Path("mine.yaml"), "name: mine\n"),
    "mind up": (SimpleNamespace(address="127.0.0.1:6379", cpus=2, token="secret"), True),
    "mind down": True,
    "mind config": chosen("train.epochs"),
    "mind plan": (Machine(), None),
    "mind jobs list": [Job("a", "FAILED", "mind train", message="mind: error: no data", exit_code=2)],
    "mind jobs status": Job("a", "RUNNING", "mind train", started=1.0),
    "mind promote": SimpleNamespace(promoted=False, reason="worse", champion=None, difference=None,
                                    challenger=SimpleNamespace(name="x", version="1")),
    "mind doctor": Diagnosis("3.11", "Linux", {"ray": None}, 2, 1, 1, "h", None, "/tmp", 1, 1, [], Reach(None, ""),
                             Reach(True, ""), {}, []),
}  # fmt: skip


@pytest.mark.parametrize("command", list(RETURNED))
def test_a_result_is_read_back_as_its_type(command: str) -> None:
    read = json.loads(document(command, RETURNED[command]))
    assert (read["command"], read["format"]) == (command, 1)
    TypeAdapter(result_type(command)).validate_python(read["result"])


def test_a_failed_job_says_why() -> None:
    (job,) = json.loads(document("mind jobs list", RETURNED["mind jobs list"]))["result"]["jobs"]
    assert (job["reason"], job["started"]) == ("no data", None)


def test_lists_are_rows_unless_a_file_was_asked_for(tmp_path: Path) -> None:
    table = pa.table({"user": [1], "id": ["x"]})
    with lists_file(None, wanted=True) as file:
        assert file is not None
        pq.write_table(table, file)
        assert lists_in(file, None) == Lists(None, [{"user": 1, "id": "x"}])
    with lists_file(tmp_path / "a.csv", wanted=True) as file:
        assert lists_in(file, tmp_path / "a.csv") == Lists(tmp_path / "a.csv")
    with lists_file(None, wanted=False) as file:
        assert file is None
        assert lists_in(None, None) is None


def test_whatever_prints_to_standard_output_the_document_stands_there_alone(tmp_path: Path) -> None:
    # given a stage that prints in Python, below Python, and in a process of its own
    code = f"""
import os, subprocess, sys, types
module = types.ModuleType("pipelines.evaluation.report_page.command")
def report(config, **_):
    print("by Python")
    from pipelines.progress import output
    output.print("a table")
    os.write(1, b"below Python\\n")
    subprocess.run(["echo", "by a process"])
    from pathlib import Path
    return Path("page.html")
module.report = report
sys.modules[module.__name__] = module
sys.argv = ["mind", "report", {str(tmp_path / "c.yaml")!r}, "--json"]
from jobs.cli import main
main()
"""
    (tmp_path / "c.yaml").write_text("name: tiny\ndata:\n  events: {path: log.csv}\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"command": "mind report", "format": 1, "result": {"page": "page.html"}}
    assert [each in done.stderr for each in ("by Python", "a table", "below Python", "by a process")] == [True] * 4


def test_after_a_mistake_there_is_nothing_on_standard_output(tmp_path: Path) -> None:
    result = run("train", tmp_path / "no.yaml", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("mind: error: ")


def test_quiet_leaves_out_the_next_command(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    install(monkeypatch, "train")
    assert run("train", conf, "--quiet").output == ""
    assert run("train", conf).stdout.startswith("next: ")


def test_completion_can_be_installed() -> None:
    assert "--install-completion" in run("--help").stdout

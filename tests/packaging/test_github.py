"""The files that GitHub reads: valid by their schemas, and true."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.written import make_targets

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCHEMAS = {
    "github-workflows": WORKFLOWS,
    "github-issue-forms": [
        path for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"
    ],
    "github-issue-config": [ROOT / ".github/ISSUE_TEMPLATE/config.yml"],
    "citation-file-format": [ROOT / "CITATION.cff"],
}


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="check-jsonschema is not installed")
@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_files_are_valid_by_their_schema(schema: str) -> None:
    files = [str(path) for path in SCHEMAS[schema]]
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_targets_that_exist_with_few_rights_and_an_end(workflow: Path) -> None:
    text = workflow.read_text()
    for target in re.findall(r"\bmake (?:PYTHON=\S+ )?([a-z][a-z-]*)", text):
        assert target in make_targets(), target
    values = yaml.safe_load(text)
    assert values["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in values["jobs"].values())
    assert all(re.search(r"@v\d+$", step["uses"]) for step in steps(workflow) if "uses" in step)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_the_shell_of_a_workflow_parses_and_takes_nothing_from_outside_into_it(workflow: Path) -> None:
    for step in steps(workflow):
        command = step.get("run", "")
        done = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert "${{" not in command, "a title or branch name would be run as code"


def test_pinned_tools_of_the_workflows_are_in_the_constraints() -> None:
    pinned = (ROOT / "constraints.txt").read_text()
    for workflow in WORKFLOWS:
        for name in re.findall(r"grep '\^([\w-]+==)'", workflow.read_text()):
            assert re.search(rf"^{re.escape(name)}", pinned, re.MULTILINE), name


def test_the_workflow_runs_the_tests_as_make_test_does() -> None:
    (parallel,) = re.findall(r"^IN_PARALLEL := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [step.get("run", "").strip() for step in steps(ROOT / ".github/workflows/ci.yml")]
    assert [command for command in commands if "pytest" in command] == [f".venv/bin/pytest {parallel}"]


def test_forms_ask_for_what_the_contributors_need() -> None:
    bug = (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text()
    assert "mind doctor" in bug
    assert "SECURITY.md" in bug

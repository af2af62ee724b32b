"""The tutorials as typed: every command of a page runs in an empty folder, in the order of the pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.typed import typed
from tests.docs.written import ROOT

ENTER = "source .venv/bin/activate"  # in the checkout: what comes after it finds `mind`


def pages(*names: str) -> list[Path]:
    return [ROOT / "docs/tutorials" / name for name in names]


def follow(page: Path, folder: Path) -> None:
    code = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "MLFLOW_DISABLE_TELEMETRY": "true"}
    for text, name in typed(page):
        if name:
            (folder / name).write_text(text)
            continue
        assert text.startswith("mind "), f"{page.name}: {text}"
        command = f"{sys.executable} -m jobs.cli {text.removeprefix('mind ')}"
        done = subprocess.run(
            command, shell=True, cwd=folder, env={**os.environ, **code}, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{page.name}: {text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_tutorials_have_commands_and_files() -> None:
    own_log, campaign, production = pages("own-log.md", "campaign.md", "production.md")
    assert [name for _, name in typed(own_log) if name] == ["shop.yaml"]
    assert [name for _, name in typed(campaign) if name] == ["shop-tune.yaml"]
    commands = [text for page in (own_log, campaign, production) for text, name in typed(page) if not name]
    assert len(commands) > 12
    assert all(text.startswith("mind ") for text in commands)


def test_who_comes_to_a_tutorial_is_told_how_mind_is_found() -> None:
    assert ENTER in (ROOT / "docs/start.md").read_text()
    for page in (ROOT / "docs/tutorials").glob("*.md"):
        assert ENTER in page.read_text() or "(own-log.md)" in page.read_text(), page.name


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_every_command_of_the_tutorials_runs(tmp_path: Path) -> None:
    for page in pages(
        "own-log.md", "campaign.md", "production.md"
    ):  # the one on a cluster: tests/cluster has its steps
        follow(page, tmp_path)
    assert (tmp_path / "lists.parquet").exists()
    assert (tmp_path / "shelves.parquet").exists()

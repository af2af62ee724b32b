"""The tutorials as typed: every command of a page runs in an empty folder, in the order of the pages."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.written import ROOT

BLOCK = re.compile(r"^```(bash|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"Write `([\w-]+\.yaml)`")


def typed(page: str) -> Iterator[tuple[str, str]]:
    """Yield (command, "") and (text, file's name) as a reader meets them."""
    text = (ROOT / "docs/tutorials" / page).read_text()
    for block in BLOCK.finditer(text):
        if block[1] == "bash":
            yield from ((line, "") for line in block[2].splitlines())
        elif names := FILE.findall(text[: block.start()]):
            yield block[2], names[-1]


def follow(page: str, folder: Path) -> None:
    code = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "MLFLOW_DISABLE_TELEMETRY": "true"}
    for text, name in typed(page):
        if name:
            (folder / name).write_text(text)
            continue
        assert text.startswith("mind "), f"{page}: {text}"
        command = f"{sys.executable} -m jobs.cli {text.removeprefix('mind ')}"
        done = subprocess.run(
            command, shell=True, cwd=folder, env={**os.environ, **code}, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{page}: {text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_tutorials_have_commands_and_files() -> None:
    assert [name for _, name in typed("own-log.md") if name] == ["shop.yaml"]
    assert [name for _, name in typed("campaign.md") if name] == ["shop-tune.yaml"]
    commands = [
        text for page in ("own-log.md", "campaign.md", "production.md") for text, name in typed(page) if not name
    ]
    assert len(commands) > 12
    assert all(text.startswith("mind ") for text in commands)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_every_command_of_the_tutorials_runs(tmp_path: Path) -> None:
    for page in ("own-log.md", "campaign.md", "production.md"):  # the one on a cluster: tests/cluster has its steps
        follow(page, tmp_path)
    assert (tmp_path / "lists.parquet").exists()
    assert (tmp_path / "shelves.parquet").exists()

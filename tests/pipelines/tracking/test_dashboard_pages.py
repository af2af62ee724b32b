"""MLflow's pages, as `mind ui` serves them: a browser that has not chosen yet opens on runs and models."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
ASK = """
from pipelines.tracking.dashboard_pages import CHOICES, pages
client = pages.test_client()
page = client.get("/")
assert page.status_code == 200, page.status
text = page.get_data(as_text=True)
script = text.index("mlflow.workflowType_v1")
assert script < text.index("</head>") and script < text.index("src="), "before MLflow's own scripts"
assert '"machine_learning"' in text
assert int(page.headers["Content-Length"]) == len(page.data)
assert "ETag" not in page.headers
assert all(key in text for key in CHOICES)
assert "workflowType_v1" not in client.get("/health").get_data(as_text=True)
"""
KEYS = """
import mlflow.server, pathlib
from pipelines.tracking.dashboard_pages import CHOICES
texts = [file.read_text(errors="ignore") for file in pathlib.Path(mlflow.server.app.static_folder).rglob("main.*.js")]
for key in CHOICES:
    name = key.removesuffix("_v1")
    assert any(name in text for text in texts), name
"""


def ran(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: MLflow's server is one app per process, over one store."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def test_the_start_page_tells_the_browser_to_open_on_runs() -> None:
    done = ran(ASK)
    assert done.returncode == 0, done.stderr


def test_mlflow_still_reads_the_names_that_are_written() -> None:
    done = ran(KEYS)
    assert done.returncode == 0, done.stderr


def test_the_package_names_the_app_where_mlflow_looks_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["mlflow.app"] == {"mind": "pipelines.tracking.dashboard_pages:app"}

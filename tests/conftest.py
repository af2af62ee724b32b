"""What every test stands on: quiet, offline tools, and nothing of the user's own settings."""

import os
from pathlib import Path

import pytest

# Before Ray or MLflow is imported; the processes that Ray starts inherit them.
os.environ.update(
    {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MPLBACKEND": "Agg",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a checkpoint counts only once the controller has polled it
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # Ray's own is 15: behind any other work, tests wait until they time out
    }
)
for name in ("MIND_HOME", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(name, None)

MINIMAL = """\
name: tiny
home: {home}
data:
  events: {{path: log.csv}}
tracking: {{system_metrics: false}}
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In parallel, begin with the files that start Ray: they are the long ones, and one at the end has a core alone."""
    if hasattr(config, "workerinput"):  # of pytest-xdist
        items[:] = long_files_first(items)


def long_files_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Put the files with a test of mark `ray` first; otherwise the order stays."""
    long = {item.path for item in items if item.get_closest_marker("ray") is not None}
    return sorted(items, key=lambda item: item.path not in long)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """The smallest valid configuration file; its home lies beside it."""
    path = tmp_path / "tiny.yaml"
    path.write_text(MINIMAL.format(home=tmp_path / "home"))
    return path

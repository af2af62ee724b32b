"""Running `mind` as a user does, in a home folder of the benchmark's own, and reading what it logged in MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import REPOSITORY

MIND = Path(sys.executable).with_name("mind")
SETTINGS_OF_THE_USER = ("MIND_HOME", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")


@dataclass(frozen=True)
class Run:
    """One `mind train`: seconds of the whole process, and its metrics as (step, time, value) by rising step.

    started : when the process was started, seconds since 1970, as the times of the metrics.
    """

    seconds: float
    started: float
    metrics: dict[str, list[tuple[int, float, float]]]

    def values(self, name: str) -> list[float]:
        return [value for _, _, value in self.metrics.get(name, [])]


def environment() -> dict[str, str]:
    """Return a command's environment: this process's, without the user's settings."""
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS_OF_THE_USER}
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}


def mind(*words: str) -> float:
    """Run a command; seconds it took.

    Raises
    ------
    SystemExit
        With the command and the last line it said.
    """
    started = time.perf_counter()
    done = subprocess.run([MIND, *words], cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise SystemExit(f"mind {' '.join(words)}: {said[-1]}")
    return time.perf_counter() - started


def mind_train(conf: Path, home: Path, *sets: str) -> Run:
    """`mind train` in `home`, and the metrics of the run that it made."""
    words = [word for text in sets for word in ("--set", text)]
    started = time.time()
    seconds = mind("train", str(conf), "--home", str(home), *words)
    return Run(seconds, started, _newest_metrics(home))


def _newest_metrics(home: Path) -> dict[str, list[tuple[int, float, float]]]:
    import mlflow  # heavy, and only this needs it

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(
        experiments, "tags.`mind.stage` = 'train'", max_results=1, order_by=["attributes.start_time DESC"]
    )
    metrics = {}
    for name in run.data.metrics:
        points = client.get_metric_history(run.info.run_id, name)
        metrics[name] = sorted((point.step, point.timestamp / 1000, point.value) for point in points)
    return metrics


def conf_text(name: str, events: Path, more: str = "") -> str:
    """A configuration for events with the columns that `mind generate` writes, without features."""
    return f"""\
name: {name}
data:
  events: {{path: {events}, user: user_id, item: item_id, time: time}}
{more}"""


@dataclass(frozen=True)
class Generated:
    """A data set made by `mind generate` and `mind preprocess`: the configuration and the home that holds it."""

    conf: Path
    home: Path
    name: str

    @property
    def dataset(self) -> Path:
        return self.home / "datasets" / self.name

    def fresh_home(self, folder: Path) -> Path:
        """A home without runs in `folder` that has this data set."""
        folder.mkdir(parents=True)
        (folder / "datasets").symlink_to(self.dataset.parent, target_is_directory=True)
        return folder


def generated(folder: Path, name: str, events: int, users: int, items: int, more: str) -> Generated:
    """Make a data set below `folder`, or find it there from an earlier run."""
    from pipelines.dataset.dataset import SCHEMA_VERSION

    root = folder / f"{name}-{events}-{users}-{items}-v{SCHEMA_VERSION}"
    found = Generated(root / "conf.yaml", root / "home", name)
    root.mkdir(parents=True, exist_ok=True)
    found.conf.write_text(conf_text(name, root / "log" / "events", more))
    if not (found.dataset / "manifest.json").is_file():
        sizes = ["--events", str(events), "--users", str(users), "--items", str(items)]
        mind("generate", str(root / "log"), *sizes)
        mind("preprocess", str(found.conf), "--home", str(found.home))
    return found

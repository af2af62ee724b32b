"""Where a training run keeps its state, and whether one is there to go on with.

    <home>/runs/<name>-<preset>-<hash>[-N]/run.json     which MLflow run, and whether it is finished
    <home>/runs/<...>/lock                              held by the process that trains it
    <home>/runs/<...>/                                  Ray Train's checkpoints of that run
    <home>/models/<...>/                                the artifact, once the run is finished

The hash covers the settings that change a result and the dataset's fingerprint: the same command over the same data
finds its own run. A run that was killed goes on; a finished one is left alone and the next run gets the next number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.config.home_location import shown
from pipelines.config.load import config_hash
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.storage.atomic import whole
from pipelines.storage.home_files import exists, renew
from pipelines.storage.locks import exclusive


@dataclass(frozen=True)
class RunState:
    """run.json."""

    name: str
    mlflow_run_id: str | None = None
    finished: bool = False


def run_stem(config: Config, dataset: Dataset) -> str:
    """Name the first run of these settings and data; the next are <stem>-2, <stem>-3, ..."""
    digest = config_hash(config)[:6] + dataset.manifest.fingerprint[:4]
    return f"{config.name}-{config.preset}-{digest}"


def runs_so_far(config: Config, dataset: Dataset) -> list[RunState]:
    """List the finished runs of these settings and data, the oldest first, and then the unfinished or a new one."""
    stem = run_stem(config, dataset)
    states = [read_state(config, stem)]
    while states[-1].finished:
        states.append(read_state(config, f"{stem}-{len(states) + 1}"))
    return states


def current_run(config: Config, dataset: Dataset) -> RunState:
    """Find the unfinished run of these settings and data, or name a new one."""
    return runs_so_far(config, dataset)[-1]


def finished_model(config: Config, dataset: Dataset) -> Path | None:
    """Find the model of the newest finished run of these settings and data, if it is there."""
    finished = runs_so_far(config, dataset)[:-1]
    folder = model_folder(config, finished[-1].name) if finished else None
    return folder if folder is not None and exists(folder / "config.json") else None


@contextmanager
def claimed_run(config: Config, dataset: Dataset) -> Iterator[RunState]:
    """Keep `current_run` to this process until the block ends.

    Raises
    ------
    UserError
        If another process is training it.
    """
    while True:
        state = current_run(config, dataset)
        folder = run_folder(config, state.name)
        folder.mkdir(parents=True, exist_ok=True)
        busy = (
            f"{folder.name}: another mind train is training this run ({shown(folder)}); wait for it or end it (any "
            "other setting is a run of its own, e.g. --set train.seed=1)"
        )
        with exclusive(folder / "lock", busy):
            if current_run(config, dataset) == state:  # else its owner ended it between the two lines above
                yield state
                return


def read_state(config: Config, name: str) -> RunState:
    """Read the state of a run by its name; a fresh one if there is none."""
    file = renew(run_folder(config, name) / "run.json")
    return RunState(**json.loads(file.read_text("utf-8"))) if file.is_file() else RunState(name)


def write_state(config: Config, state: RunState) -> None:
    """Replace run.json in one step."""
    with whole(run_folder(config, state.name) / "run.json") as aside:
        aside.write_text(json.dumps(asdict(state), indent=1) + "\n", "utf-8")


def run_folder(config: Config, name: str) -> Path:
    """Return the folder of Ray Train's checkpoints and run.json."""
    return config.place("runs", name)


def model_folder(config: Config, name: str) -> Path:
    """Return the folder of the model artifact of a run."""
    return config.place("models", name)

"""The stages as the harness sees them: how one is started, when it is disturbed, and what it must have made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.storage.digests import table_digest

Made = dict[str, str]  # digest, by what was made

CONF = """\
name: planted
home: {home}
data:
  events: {{path: {log}/events, user: user_id, item: item_id, time: time}}
  items: {{path: {log}/items.parquet, id: item_id, features: {{category: {{}}, price: {{kind: numeric}}}}}}
  profile: {{path: {log}/profile.parquet, id: user_id, features: {{group: {{}}}}}}
model: {{dim: 16, interests: 3, max_history: 12, hidden: [16]}}
loss: {{uniform_negatives: 32, popularity_negatives: 32}}
train: {{batch_size: 256, epochs: 4, threads: 1, patience: null}}
evaluate: {{seen: keep, cutoffs: [10, 20]}}
tracking: {{system_metrics: false}}
ray: {{num_cpus: 2}}
"""


@dataclass(frozen=True)
class Stage:
    """A command.

    arguments : after CONF; OUT stands for a file of the case.
    needs : folders of an undisturbed home that it starts from.
    moments : lines that it says, after each of which it may be disturbed.
    worker : how the title of the Ray worker begins that does its work.
    made : what a home, and OUT, hold of it.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    moments: tuple[str, ...]
    worker: tuple[str, ...]
    made: Callable[[Path, Path], Made]


def _file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _dataset(home: Path, _: Path) -> Made:
    folder = home / "datasets" / "planted"
    files = {str(file.relative_to(folder)): _file(file) for file in folder.rglob("*.parquet")}
    return {"fingerprint": json.loads((folder / "manifest.json").read_text())["fingerprint"], **files}


def _model(home: Path, _: Path) -> Made:
    (folder,) = (home / "models").iterdir()
    card = json.loads((folder / "config.json").read_text())
    files = {name: entry["sha256"] for name, entry in card["files"].items()}
    return {"metrics": json.dumps({k: v for k, v in card["metrics"].items() if "/" in k and "sec" not in k
                                   and "wait" not in k}, sort_keys=True), **files}  # fmt: skip


def _evaluation(home: Path, _: Path) -> Made:
    (folder,) = (home / "evaluations").iterdir()
    return {"report": json.dumps(_timeless(json.loads((folder / "report.json").read_text()))),
            "users": table_digest(pq.read_table(folder / "users.parquet"))}  # fmt: skip


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        others = ("run_id", "path", "dataset")  # of the home, not of what was found
        return {k: _timeless(v) for k, v in sorted(value.items()) if k not in others and "second" not in k}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _lists(_: Path, out: Path) -> Made:
    return {"lists": table_digest(pq.read_table(out))}


def _export(home: Path, _: Path) -> Made:
    (folder,) = (each for each in (home / "exports").iterdir() if each.is_dir())
    return {str(file.relative_to(folder)): _file(file) for file in folder.rglob("*.parquet")}


STAGES = (
    Stage("preprocess", (), (), ("Reading the log", "Sorting by user", "Writing sequences"),
          ("Clean", "Sort", "Writ", "MapBatches"), _dataset),
    Stage("train", (), ("datasets",), ("Training ...", "  step "), ("RayTrainWorker",), _model),
    Stage("evaluate", (), ("datasets", "models", "runs"), ("Fitting the baselines", "Ranking test users"),
          ("MapWorker",), _evaluation),
    Stage("recommend", ("--all", "--out", "OUT"), ("datasets", "models", "runs"), ("Recommending",),
          ("MapWorker",), _lists),
    Stage("export", (), ("datasets", "models", "runs"), ("Exporting users",), ("MapWorker",), _export),
)  # fmt: skip
BY_NAME = {stage.name: stage for stage in STAGES}

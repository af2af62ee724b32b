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
train: {{batch_size: 256, epochs: 12, threads: 1, patience: null}}
evaluate: {{seen: keep, cutoffs: [10, 20]}}
tracking: {{system_metrics: false}}
ray: {{num_cpus: 2}}
"""
CAMPAIGN = """\
campaign: planted-tune
base: conf.yaml
settings: {train: {epochs: 3}}
space: {model.interests: {grid: [1, 2, 3]}}
stopping: {method: none}
resources: {concurrent: 1}
finish: {refit: none}
"""  # beside the configuration, as campaign.yaml
TIMED = ("sec", "wait", "mb_")  # parts of the names of metrics that no two runs share


@dataclass(frozen=True)
class Stage:
    """A command.

    arguments : words after `mind`; CONF, CAMPAIGN and OUT stand for files of the case.
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
    if (pointer := folder / "current.json").is_file():  # fetched from a store, which keeps versions
        folder /= json.loads(pointer.read_text())["generation"]
    files = {str(file.relative_to(folder)): _file(file) for file in folder.rglob("*.parquet")}
    return {"fingerprint": json.loads((folder / "manifest.json").read_text())["fingerprint"], **files}


def _model(home: Path, _: Path) -> Made:
    (folder,) = (home / "models").iterdir()
    card = json.loads((folder / "config.json").read_text())
    files = {name: entry["sha256"] for name, entry in card["files"].items()}
    return {"metrics": json.dumps(_timeless(card["metrics"])), **files}


def _evaluation(home: Path, _: Path) -> Made:
    (folder,) = (home / "evaluations").iterdir()
    return {"report": json.dumps(_timeless(json.loads((folder / "report.json").read_text()))),
            "users": table_digest(pq.read_table(folder / "users.parquet"))}  # fmt: skip


def _timeless(value: Any) -> Any:
    """Leave out seconds, and what names the home or the log instead of what was found."""
    if isinstance(value, dict):
        others = ("run_id", "path", "dataset", "name")
        kept = {k: v for k, v in sorted(value.items()) if k not in others and not any(part in k for part in TIMED)}
        return {k: _timeless(v) for k, v in kept.items()}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _lists(_: Path, out: Path) -> Made:
    return {"lists": table_digest(pq.read_table(out))}


def _export(home: Path, _: Path) -> Made:
    (folder,) = (each for each in (home / "exports").iterdir() if each.is_dir())
    mark = json.loads((folder / "export.json").read_text())
    told = {name: mark[name] for name in ("fingerprint", "dim", "counts", "top_n", "rules")}
    files = {str(file.relative_to(folder)): _file(file) for file in folder.rglob("*.parquet")}
    return {"export.json": json.dumps(told), **files}


def _campaign(home: Path, _: Path) -> Made:
    folder = home / "campaigns" / "planted-tune"
    return {file.name: json.dumps(_timeless(json.loads(file.read_text()))) for file in folder.glob("trials/*.json")}


def _all(home: Path, out: Path) -> Made:
    found = {}
    for name, made in (("dataset", _dataset), ("model", _model), ("evaluation", _evaluation), ("export", _export)):
        found |= {f"{name}/{what}": digest for what, digest in made(home, out).items()}
    return found


STAGES = (
    Stage("preprocess", ("preprocess", "CONF"), (), ("Reading the log", "Sorting by user", "Writing sequences"),
          ("Clean", "Sort", "Writ", "MapBatches"), _dataset),
    Stage("train", ("train", "CONF"), ("datasets",), ("Starting workers", "  step ", "epoch 6.0"),
          ("RayTrainWorker",), _model),
    Stage("evaluate", ("evaluate", "CONF"), ("datasets", "models", "runs"),
          ("Fitting the baselines", "Ranking test users"), ("MapWorker",), _evaluation),
    Stage("recommend", ("recommend", "CONF", "--all", "--out", "OUT"), ("datasets", "models", "runs"),
          ("Recommending",), ("MapWorker",), _lists),
    Stage("export", ("export", "CONF"), ("datasets", "models", "runs"), ("Exporting users",), ("MapWorker",), _export),
    Stage("tune", ("tune", "CAMPAIGN"), ("datasets",), ("trials at a time", "trial   1 finished"),
          ("OneWorkerTrial", "ResourceTrainable"), _campaign),
    Stage("pipeline", ("pipeline", "CONF"), (), ("Sorting by user", "  step ", "Ranking test users", "Exporting users"),
          ("MapWorker", "RayTrainWorker", "MapBatches"), _all),
)  # fmt: skip
BY_NAME = {stage.name: stage for stage in STAGES}
EARLIER = {  # which stages of an undisturbed home each one starts from
    "preprocess": (),
    "train": ("preprocess",),
    "evaluate": ("preprocess", "train"),
    "recommend": ("preprocess", "train"),
    "export": ("preprocess", "train"),
    "tune": ("preprocess",),
    "pipeline": (),
}

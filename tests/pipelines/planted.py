"""A generated log with planted interests, item features and profiles, and the settings to work on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.config import Config

SETTINGS: dict[str, Any] = {
    "name": "planted",
    "model": {"dim": 16, "interests": 3, "max_history": 12, "hidden": [16]},
    "loss": {"uniform_negatives": 32, "popularity_negatives": 32},
    "train": {"workers": 2, "batch_size": 512, "epochs": 3, "threads": 1, "patience": None, "metric": "recall@20"},
    "evaluate": {"cutoffs": [10, 20], "seen": "keep"},
    "tracking": {"system_metrics": False},
    "ray": {"num_cpus": 3},
}


def configure(home: Path, log: Path, **train_settings: Any) -> Config:
    events = {"path": str(log / "events"), "user": "user_id", "item": "item_id", "time": "time"}
    items = {
        "path": str(log / "items.parquet"),
        "id": "item_id",
        "features": {"category": {}, "price": {"kind": "numeric"}},
    }
    profile = {"path": str(log / "profile.parquet"), "id": "user_id", "features": {"group": {}}}
    data = {"events": events, "items": items, "profile": profile}
    settings = {**SETTINGS, "home": str(home), "data": data}
    return Config.model_validate({**settings, "train": {**SETTINGS["train"], **train_settings}})

"""A generated log with planted interests, item features and profiles, the settings and a model to work on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.schema import Config

if TYPE_CHECKING:
    from mind_core.model import MIND

UNTRAINED = "planted-default-0123456789"

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


def untrained(config: Config) -> MIND:
    """Build a model with random weights, those of its memory too, which would add nothing as they start."""
    import torch

    from pipelines.dataset.dataset import Dataset
    from pipelines.training.data import build_model

    model = build_model(config.model, Dataset.open(config.dataset_path), seed=3)
    if config.model.repeat == "memory":
        with torch.no_grad():
            model.encoder.memory.linear.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(3))
    return model


def reseal(folder: Path, **changes: Any) -> None:
    """Change a saved model's card, and vouch for it and for the files as they are now: what a forger would do."""
    from pipelines.models.seal import sealed

    file = folder / "config.json"
    file.write_text(sealed(json.loads(file.read_text("utf-8")) | changes, folder), "utf-8")


def save_untrained(config: Config, name: str = UNTRAINED, run_id: str | None = None) -> Path:
    """Put a model with random weights into the home folder: for tests that do not mind what it knows."""
    from mind_core.inference import MINDRetriever
    from pipelines.config.load import resolved
    from pipelines.dataset.dataset import Dataset
    from pipelines.models.artifact import FORMAT_VERSION, ModelCard, save_model
    from pipelines.training.data import load_data

    dataset = Dataset.open(config.dataset_path)
    manifest = dataset.manifest
    model = untrained(config)
    data = load_data(dataset, dataset.table("train"), dataset.table("validation"))
    card = ModelCard(
        format_version=FORMAT_VERSION,
        name=name,
        preset="default",
        model=resolved(config)["model"],
        items=manifest.item_rows,
        item_features=manifest.item_features,
        profile_features=manifest.profile_features,
        exclude_seen=config.evaluate.seen == "filter",
        dataset_fingerprint=manifest.fingerprint,
        run_id=run_id,
    )
    folder = config.home_path / "models" / name
    save_model(folder, card, model, MINDRetriever.of(model, data.bags), dataset)
    return folder

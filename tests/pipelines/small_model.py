"""A model of 40 items with random weights and profile features of every type, made without Ray or a data set."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch

from mind_core.config import ModelConfig
from mind_core.features import item_bags
from mind_core.inference import MINDRetriever
from mind_core.model import MIND
from mind_core.special_rows import FIRST_ITEM, FIRST_VALUE
from pipelines.dataset.dataset import RAW, Dataset, FeatureInfo
from pipelines.dataset.tensors import feature_specs
from pipelines.models.artifact import FORMAT_VERSION, ModelCard, save_model

ITEMS = 40
VALUES: dict[str, tuple[str, pa.Array | None]] = {  # name: kind, values as the dataset had them
    "group": ("categorical", pa.array(["a", "b", "c"])),
    "vip": ("categorical", pa.array([True, False])),
    "level": ("categorical", pa.array([0.5, 1.5])),
    "code": ("categorical", pa.array([3, 7, 2**60])),
    "since": ("categorical", pa.array([datetime(2020, 1, 1), datetime(2021, 1, 1)], pa.timestamp("us"))),
    "tags": ("multi", pa.array(["x", "y"])),
    "age": ("numeric", None),
}
PROFILE = {"group": "b", "vip": True, "level": 1.5, "code": 7, "since": datetime(2021, 1, 1), "tags": ["x"], "age": 3.0}
PROFILE_AS_JSON = {name: str(value) if isinstance(value, datetime) else value for name, value in PROFILE.items()}


def save_small(folder: Path, ids: pa.Array | None = None, *, seed: int = 0, profile: bool = True) -> Path:
    """Write the model's folder; `ids` of the items, 101 to 140 by default."""
    config = ModelConfig(dim=8, interests=3, max_history=6, hidden=(8,), profile_dim=4)
    infos = tuple(_info(name, *each) for name, each in VALUES.items()) if profile else ()
    model = MIND(config, ITEMS + FIRST_ITEM, [], feature_specs(infos), seed)
    with torch.no_grad():
        model.encoder.memory.linear.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
        model.profile_table.weight[1:].normal_(0, 1.0, generator=torch.Generator().manual_seed(seed))
    ids = pa.array(np.arange(101, 101 + ITEMS)) if ids is None else ids
    counts = pa.array(np.arange(ITEMS, 0, -1))
    items = {"item": np.arange(FIRST_ITEM, FIRST_ITEM + ITEMS), "id": ids, "count": counts, "train_count": counts}
    table = pa.table(items)
    shelves = [f"shelf {place % 4}" for place in range(ITEMS)]
    told = pa.table({"show_title": [f"<{place}>" for place in range(ITEMS)], f"{RAW}shelf": shelves})
    card = ModelCard(
        format_version=FORMAT_VERSION,
        name=f"small-{seed}",
        preset="default",
        model=asdict(config),
        items=ITEMS + FIRST_ITEM,
        item_features=(),
        profile_features=infos,
        exclude_seen=True,
        dataset_fingerprint="f" * 64,
        run_id=None,
    )
    dataset = SimpleNamespace(
        items=lambda: table,
        raw_items=lambda: told,
        manifest=SimpleNamespace(profile_features=infos),
        vocabulary=lambda name: _vocabulary(name.removeprefix("profile_features/")),
    )
    retriever = MINDRetriever.of(model, item_bags([], ITEMS + FIRST_ITEM))
    save_model(folder, card, model, retriever, cast(Dataset, dataset))
    return folder


def _info(name: str, kind: Any, values: pa.Array | None) -> FeatureInfo:
    if values is None:
        return FeatureInfo(name=name, kind=kind, size=0, separator=None, mean=2.0, std=1.0, edges=None)
    return FeatureInfo(name=name, kind=kind, size=FIRST_VALUE + len(values), separator=None)


def _vocabulary(name: str) -> pa.Table:
    values = VALUES[name][1]
    assert values is not None
    index = np.arange(FIRST_VALUE, FIRST_VALUE + len(values), dtype=np.int32)
    return pa.table({"index": index, "value": values, "count": np.ones(len(values), np.int64)})

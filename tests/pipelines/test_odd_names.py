"""Columns of a real table have odd names: as features they work from log to served model, and stay in the home."""

from __future__ import annotations

import os
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.evaluation.evaluate import evaluate
from pipelines.models.artifact import load_model
from pipelines.preprocess.preprocess import preprocess
from pipelines.retrieval.export import export
from pipelines.tracking.store import store_of
from pipelines.training.train import train

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(240)]

ODD = ["price/unit", "../../../x", "..", "Größe in cm", "a.b", "a~2Fb", "a/b", "100 %", "k=v", "$('x')[*]?", "L" * 260]


def table(ids: int, path: Path) -> str:
    columns = {name: [f"{name} {n % 3}" for n in range(ids)] for name in ODD}
    pq.write_table(pa.table({"id": list(range(ids)), **columns, "tags": [["x", "y/z"]] * ids}), path)
    return str(path)


def files_below(folder: Path) -> set[str]:
    return {str(Path(root, name)) for root, _, names in os.walk(folder) for name in names}


def test_odd_columns_work_as_features_of_items_and_profiles(tmp_path: Path) -> None:
    log, home = tmp_path / "log.parquet", tmp_path / "far" / "away" / "home"
    rows = range(600)
    pq.write_table(
        pa.table({"user": [n % 30 for n in rows], "item": [n * 7 % 20 for n in rows], "time": list(rows)}), log
    )
    features = {name: {"kind": "multi" if name == "tags" else "categorical"} for name in [*ODD, "tags"]}
    config = Config.model_validate(
        {
            "name": "odd",
            "home": str(home),
            "data": {
                "events": {"path": str(log)},
                "items": {"path": table(20, tmp_path / "items.parquet"), "id": "id", "features": features},
                "profile": {"path": table(30, tmp_path / "people.parquet"), "id": "id", "features": features},
            },
            "model": {"dim": 4, "interests": 2, "hidden": [4]},
            "train": {"epochs": 1, "batch_size": 128},
            "evaluate": {"seen": "keep"},
            "tracking": {"system_metrics": False},
        }
    )
    before = files_below(tmp_path)

    dataset = preprocess(config)
    assert preprocess(config).manifest.fingerprint == dataset.manifest.fingerprint
    for side in ("item", "profile"):
        for name in ODD:
            values = Dataset.open(config.dataset_path).vocabulary(f"{side}_features/{name}")["value"].to_pylist()
            assert values == [f"{name} {n}" for n in range(3)], f"{side} {name} has its own file"

    outcome = train(config)
    profile = pa.table({name: [f"{name} 1"] for name in ODD})
    model = load_model(outcome.model)
    encoded = {encoder.name: encoder for encoder in model.profile_encoders}
    assert all(encoded[name].encode(profile[name]).to_pylist() == [4] for name in ODD)
    evaluate(config)
    export(config)

    uri = mlflow.MlflowClient(store_of(config)).get_run(outcome.run_id).data.tags["mind.model_uri"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store_of(config))
        served = mlflow.pyfunc.load_model(uri)
    request = pa.table({"history": [[1, 2, 3]], **{name: [f"{name} 1"] for name in ODD}}).to_pandas()
    assert len(served.predict(request)["items"][0]) > 0

    outside = {file for file in files_below(tmp_path) - before if not file.startswith(str(home))}
    assert outside == set(), "nothing is written outside the home"

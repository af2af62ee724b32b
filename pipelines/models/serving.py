"""The MLflow model: raw histories in, recommended item ids out. MLflow runs this file when it logs or loads the model.

Needs torch, pyarrow and safetensors; neither Ray nor pickle. Request: a column `history` (list of item ids, oldest
first) and any of the profile columns. Answer: lists `items`, `scores` and `interests` (which interest found the item).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, TensorSpec

from pipelines.dataset.vocabulary import FeatureEncoder
from pipelines.models.artifact import SavedModel, load_model


class ServedRetriever(PythonModel):
    """Top-n recommendations of the artifact named "model"."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the artifact once."""
        self.model = load_model(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer each request row with one row of lists; params: k, exclude_seen."""
        params = params or {}
        id_type = self.model.item_ids.type
        histories = pa.array([_ids(history) for history in model_input["history"]], pa.list_(id_type))
        profile = pa.Table.from_pandas(model_input.drop(columns="history"), preserve_index=False)
        profile = profile if profile.num_columns else None
        sequences = self.model.encode(histories, profile)
        exclude_seen = params.get("exclude_seen", self.model.card.exclude_seen)
        flat = self.model.recommend(sequences, int(params.get("k", 20)), exclude_seen=bool(exclude_seen)).to_pandas()
        lists = flat.groupby("user")[["id", "score", "interest"]].agg(list).reindex(range(len(model_input)))
        lists.columns = pd.Index(["items", "scores", "interests"])
        answer: pd.DataFrame = lists.map(lambda value: value if isinstance(value, list) else [])
        return answer.reset_index(drop=True)


def _ids(history: Any) -> list[Any]:
    return [] if history is None else list(history)


def signature(model: SavedModel) -> ModelSignature:
    """Describe a model's request and answer: the item ids' type and its own profile columns."""
    id_type = _mlflow_type(model.item_ids.type)
    inputs: list[ColSpec | TensorSpec] = [ColSpec(Array(id_type), "history")]
    inputs += [ColSpec(_column_type(encoder), encoder.name, required=False) for encoder in model.profile_encoders]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(Array(id_type), "items"),
        ColSpec(Array(DataType.double), "scores"),
        ColSpec(Array(DataType.long), "interests"),
    ]
    params = [
        ParamSpec("k", DataType.integer, 20),
        ParamSpec("exclude_seen", DataType.boolean, model.card.exclude_seen),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(params))


def example(model: SavedModel) -> pd.DataFrame:
    """Make a request with the three most frequent items as its history."""
    return pd.DataFrame({"history": [model.item_ids[:3].to_pylist()]})


def _column_type(encoder: FeatureEncoder) -> Any:
    if encoder.values is None:
        return DataType.double
    kind = _mlflow_type(encoder.values.type)
    return Array(kind) if encoder.kind == "multi" and encoder.separator is None else kind


def _mlflow_type(kind: pa.DataType) -> DataType:
    return DataType.string if pa.types.is_string(kind) else DataType.long


mlflow.models.set_model(ServedRetriever())

"""The MLflow model: raw histories in, recommended item ids out. MLflow runs this file when it logs or loads the model.

Needs torch, pyarrow and safetensors; neither Ray nor pickle. Request: a column `history` (list of item ids, oldest
first) and any of the profile columns, of which a row may lack any; params `k` and `exclude_seen`. Answer: lists
`items`, `scores` and `interests` (which interest found the item; -1 in a popular list, which a history without a known
item gets). Requests are read and answered as `mind serve` does.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, TensorSpec

from pipelines.dataset.vocabulary import FeatureEncoder
from pipelines.models.answers import Answer, Answerer
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.limits import DEFAULT_N, RequestError
from pipelines.models.requests import Request, integer, said

MOST_ROWS = 1_000  # of one call
SERVER = "__pyfunc_model_path__"  # set in the processes of `mlflow models serve`, which hold this one model
IGNORES = ("Found extra inputs", "Unrecognized params")


class ServedRetriever(PythonModel):
    """Top-n recommendations of the artifact named "model"."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the artifact once."""
        self.answerer = Answerer(load_model(Path(context.artifacts["model"])))
        if SERVER in os.environ:
            logging.getLogger("mlflow.models.utils").addFilter(refuse_what_is_ignored)
            refuse_deep_json()

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer each request row with one row of lists; params: k, exclude_seen."""
        try:
            answers = self.answerer.answer(self._requests(model_input, params or {}))
        except RequestError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return pd.DataFrame([_row(answer) for answer in answers], columns=["items", "scores", "interests"])

    def _requests(self, table: pd.DataFrame, params: dict[str, Any]) -> list[Request]:
        if unknown := set(params) - {"k", "exclude_seen"}:
            raise RequestError(f"param {min(unknown)!r}: unknown; accepted: k, exclude_seen")
        k, filtered = params.get("k", DEFAULT_N), params.get("exclude_seen")
        number, most = None if isinstance(k, str) else integer(k), self.answerer.limits.n
        if number is None or not 1 <= number <= most:
            raise RequestError(f"k={said(k)}: must be an integer from 1 to {most:,}")
        if len(table) > MOST_ROWS:
            raise RequestError(f"{len(table):,} rows: must be at most {MOST_ROWS:,} at a time")
        seen = None if filtered is None else "filter" if filtered else "keep"
        columns = [str(name) for name in table.columns if name != "history"]
        read = []
        for row, (history, *values) in enumerate(zip(*(table[name] for name in ["history", *columns]), strict=True)):
            profile = {name: None if _missing(value) else value for name, value in zip(columns, values, strict=True)}
            asked = {"history": [] if _missing(history) else history, "n": number, "profile": profile, "seen": seen}
            try:
                read.append(self.answerer.reader.read(asked))
            except RequestError as error:
                raise RequestError(f"row {row}: {error}") from None
        return read


def refuse_deep_json() -> None:
    """Have MLflow's server answer 400 to JSON that is nested too deep for Python; MLflow 3.17 answers 500.

    Its reader of requests has no other place for that. Where that has another name, all stays as it is.
    """
    from mlflow.pyfunc import scoring_server

    decode = getattr(scoring_server, "_decode_json_input", None)
    if decode is None or getattr(decode, "refuses_deep_json", False):
        return

    def guarded(text: Any) -> Any:
        try:
            return decode(text)
        except RecursionError:
            line = "the request is nested too deep: it is an object of rows of values and lists"
            raise MlflowException(line, error_code=BAD_REQUEST) from None

    guarded.refuses_deep_json = True  # type: ignore[attr-defined]
    scoring_server._decode_json_input = guarded


def refuse_what_is_ignored(record: logging.LogRecord) -> bool:
    """Refuse columns and params that the signature lacks: MLflow drops them, and says so in its log alone.

    Raises
    ------
    MlflowException
        With MLflow's own line, which names them.
    """
    line = record.getMessage()
    if line.startswith(IGNORES):
        line = line.partition("These inputs")[0].partition(" are ignored")[0].strip()
        raise MlflowException.invalid_parameter_value(f"{line}: unknown to the model")
    return True


def _missing(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _row(answer: Answer) -> dict[str, list[Any]]:
    return {"items": answer.ids, "scores": answer.scores, "interests": answer.interests}


def signature(model: SavedModel) -> ModelSignature:
    """Describe a model's request and answer: the item ids' type and its own profile columns."""
    id_type = _mlflow_type(model.item_ids.type)
    inputs: list[ColSpec | TensorSpec] = [ColSpec(Array(id_type), "history")]
    inputs += [ColSpec(column_type(encoder), encoder.name, required=False) for encoder in model.profile_encoders]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(Array(id_type), "items"),
        ColSpec(Array(DataType.double), "scores"),
        ColSpec(Array(DataType.long), "interests"),
    ]
    params = [
        ParamSpec("k", DataType.long, DEFAULT_N),
        ParamSpec("exclude_seen", DataType.boolean, model.card.exclude_seen),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(params))


def example(model: SavedModel) -> pd.DataFrame:
    """Make a request with the three most frequent items as its history, and a known value of every profile feature."""
    columns: dict[str, list[Any]] = {"history": [model.item_ids[:3].to_pylist()]}
    for encoder in model.profile_encoders:
        columns[encoder.name] = [_known_value(encoder)]
    return pd.DataFrame(columns)


def column_type(encoder: FeatureEncoder) -> Any:
    """Choose the type of a profile column in the signature: the dataset's, if MLflow's own has a missing value.

    MLflow turns a column of integers or booleans, or of lists, that lacks a value in one row into an error or into
    `true`. These are declared as any type, and `pipelines.models.requests` checks them.
    """
    if encoder.values is None:
        return DataType.double
    kind = _mlflow_type(encoder.values.type)
    return AnyType() if encoder.kind == "multi" or kind in (DataType.long, DataType.boolean) else kind


def _known_value(encoder: FeatureEncoder) -> Any:
    if encoder.values is None:
        return encoder.mean if encoder.edges is None else (encoder.edges[0] if encoder.edges else 0.0)
    if encoder.kind == "multi":
        return encoder.values[:2].to_pylist()
    return encoder.values[0].as_py() if len(encoder.values) else None


def _mlflow_type(kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return DataType.boolean
    if pa.types.is_integer(kind):
        return DataType.long
    if pa.types.is_floating(kind):
        return DataType.double
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return DataType.datetime
    return DataType.string  # also of times with a zone and of dates, as ISO text


mlflow.models.set_model(ServedRetriever())

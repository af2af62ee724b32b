"""What a run is told, as plain data: told at once, or kept (pipelines.tracking.outbox) and told by a later command.

An item is JSON: `kind`, and what that kind needs. Files that belong to it are given beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature

from pipelines.tracking.client import global_uri
from pipelines.tracking.notes import NOTE, decision_kept
from pipelines.tracking.outbox import MAX_DIGEST_LENGTH, Item

PACKAGES = Path(__file__).parents[2]
MAX_METRICS = 1000  # these limits are MLflow's
MAX_TAG_LENGTH = 8000
MODEL_URI = "mind.model_uri"  # tag of a run: where its model lies in the store
OF_THE_RUN = ("mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", "mlflow.user")  # and its model's
PASSING = re.compile(
    r"read.?only|is full|No space|locked|deadlock|time.?out|connect|terminat|shut.?down|starting up|OperationalError",
    re.IGNORECASE,
)  # states of a database that end
POINTLESS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE")


def told(client: mlflow.MlflowClient, uri: str, run_id: str, item: Item, files: Path | None = None) -> str | None:
    """Tell the store what an item says; the URI of a model, otherwise None.

    Raises
    ------
    Exception
        Whatever MLflow raises.
    """
    return _KINDS[item["kind"]](client, uri, run_id, item, files)


def is_pointless(error: Exception) -> bool:
    """Say whether the store will never take what it has refused: its run is gone, say.

    MLflow calls whatever its database says a bad request, what passes too.
    """
    refused = isinstance(error, MlflowException) and error.error_code in POINTLESS
    return refused and PASSING.search(str(error)) is None


def _metrics(client: mlflow.MlflowClient, uri: str, run_id: str, item: Item, files: Path | None) -> None:
    more: dict[str, str] = {}
    if "dataset" in item and (model_id := _model_id(client, run_id)) is not None:
        name, digest = item["dataset"]
        more = {"model_id": model_id, "dataset_name": name, "dataset_digest": digest[:MAX_DIGEST_LENGTH]}
    entities = [Metric(name, float(value), at, step, **more) for name, value, at, step in item["metrics"]]
    for start in range(0, len(entities), MAX_METRICS):
        client.log_batch(run_id, metrics=entities[start : start + MAX_METRICS])


def _tags(client: mlflow.MlflowClient, uri: str, run_id: str, item: Item, files: Path | None) -> None:
    client.log_batch(run_id, tags=[RunTag(key, value[:MAX_TAG_LENGTH]) for key, value in item["tags"].items()])


def _card(client: mlflow.MlflowClient, uri: str, run_id: str, item: Item, files: Path | None) -> None:
    """Describe the model of a run, and the versions that it is registered as."""
    if (model_id := _model_id(client, run_id)) is None:
        return
    client.set_logged_model_tags(model_id, {NOTE: item["text"][:MAX_TAG_LENGTH]})
    for entry in client.search_model_versions(f"source_path = 'models:/{model_id}'"):
        client.update_model_version(entry.name, entry.version, decision_kept(entry.description or "", item["text"]))


def _model_id(client: mlflow.MlflowClient, run_id: str) -> str | None:
    uri = client.get_run(run_id).data.tags.get(MODEL_URI)
    return None if uri is None else uri.removeprefix("models:/")


def _dataset(client: mlflow.MlflowClient, uri: str, run_id: str, item: Item, files: Path | None) -> None:
    inputs = [DatasetInput(Dataset(**item["dataset"]), [InputTag("mlflow.data.context", item["context"])])]
    client.log_inputs(run_id, inputs)


def _table(client: mlflow.MlflowClient, uri: str, run_id: str, item: Item, files: Path | None) -> None:
    client.log_table(run_id, item["columns"], item["file"])


def _text(client: mlflow.MlflowClient, uri: str, run_id: str, item: Item, files: Path | None) -> None:
    client.log_text(run_id, item["text"], item["file"])


def _files(client: mlflow.MlflowClient, uri: str, run_id: str, item: Item, files: Path | None) -> None:
    assert files is not None
    log = client.log_artifacts if files.is_dir() else client.log_artifact
    log(run_id, str(files), item["folder"])


def _end(client: mlflow.MlflowClient, uri: str, run_id: str, item: Item, files: Path | None) -> None:
    client.set_terminated(run_id, item["status"], item["at"])


def _model(client: mlflow.MlflowClient, uri: str, run_id: str, item: Item, files: Path | None) -> str:
    run = client.get_run(run_id)
    tags = {name: run.data.tags[name] for name in OF_THE_RUN if name in run.data.tags}
    if "card" in item:
        tags[NOTE] = item["card"][:MAX_TAG_LENGTH]
    model = client.create_logged_model(
        run.info.experiment_id, item["name"], source_run_id=run_id, params=run.data.params, tags=tags
    )
    with global_uri(uri):
        info = _Placeless.log(
            artifact_path=None,
            name=item["name"],
            flavor=mlflow.pyfunc,
            flavor_name="python_function",
            run_id=run_id,
            model_id=model.model_id,
            step=item["step"],
            python_model=item["code"],
            artifacts={"model": item["folder"]},
            code_paths=[str(PACKAGES / "mind_core"), str(PACKAGES / "pipelines")],
            signature=ModelSignature.from_dict(item["signature"]),
            input_example=pd.DataFrame(**item["table"]) if "table" in item else item["example"],
            pip_requirements=[_pinned(requirement) for requirement in item["requirements"]],
        )
    client.log_batch(run_id, tags=[RunTag(MODEL_URI, str(info.model_uri))])
    return str(info.model_uri)


class _Placeless(Model):
    """An MLmodel that names no path of the machine that wrote it: MLflow reads the parts beside it in any case."""

    def to_dict(self) -> dict[str, Any]:
        """Leave out where the artifact and the code lay, and where this store keeps models."""
        found: dict[str, Any] = super().to_dict()
        flavor = found["flavors"].get("python_function")
        if flavor is None:
            return found
        flavor = {**flavor, "model_code_path": Path(flavor["model_code_path"]).name}
        artifacts = {name: {**each, "uri": each["path"]} for name, each in flavor.get("artifacts", {}).items()}
        found["flavors"] = {**found["flavors"], "python_function": {**flavor, "artifacts": artifacts}}
        if found.get("model_id"):
            found["artifact_path"] = f"models:/{found['model_id']}"
        return found


def model_item(
    name: str,
    folder: Path,
    code: Path,
    signature: ModelSignature,
    example: Any,
    requirements: Sequence[str],
    step: int,
    card: str | None = None,
) -> Item:
    """Describe a model to store; its artifact stays where it is."""
    item: Item = {
        "kind": "model",
        "name": name,
        "folder": str(folder),
        "code": str(code),
        "signature": signature.to_dict(),
        "requirements": list(requirements),
        "step": step,
        **({} if card is None else {"card": card}),
    }
    if isinstance(example, pd.DataFrame):
        found = example.to_dict(orient="split")
        return item | {"table": {"data": found["data"], "columns": found["columns"]}}
    return item | {"example": example}


def _pinned(distribution: str) -> str:
    return f"{distribution}=={version(distribution).split('+')[0]}"


_KINDS: dict[str, Callable[[mlflow.MlflowClient, str, str, Item, Path | None], str | None]] = {
    "metrics": _metrics,
    "tags": _tags,
    "card": _card,
    "dataset": _dataset,
    "table": _table,
    "text": _text,
    "files": _files,
    "end": _end,
    "model": _model,
}

"""MLflow's client as we use it: it says little and gives up soon; and how its failures are told.

MLflow takes more than a second to import, so that it is imported where it is first needed.
"""

from __future__ import annotations

import logging
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines.config.redact import redact
from pipelines.errors import UserError, machine_error

if TYPE_CHECKING:
    import mlflow

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}  # MLflow's own: minutes
QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}  # a bar a file, among our own


def store_client(uri: str) -> mlflow.MlflowClient:
    """Make a client of the store and of its registry that says little and gives up soon."""
    import mlflow

    for name, value in {**PATIENCE, **QUIET}.items():
        os.environ.setdefault(name, value)
    for talkative in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc"):  # every table and check that they make
        logging.getLogger(talkative).setLevel(logging.WARNING)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def global_uri(uri: str) -> Iterator[None]:
    """Point MLflow's process-wide store at `uri`: storing a model offers no other way."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # which also removes the variable
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def unusable(uri: str, error: Exception) -> UserError:
    """Make the error to raise when the store failed at the start."""
    if uri.startswith("sqlite:///"):
        refused = machine_error(error, uri.removeprefix("sqlite:///"))
        if refused is not None:
            return refused
    return UserError(
        f"MLflow's store {redact(uri)} cannot be used ({first_line(error)}): "
        "start it, or set tracking.uri, or leave tracking.uri out for a database in the home folder"
    )


def first_line(error: Exception) -> str:
    """Say what an exception says, for a message of one line: short and without secrets."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return textwrap.shorten(redact(lines[0]), 200, placeholder=" ...")

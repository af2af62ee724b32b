"""MLflow's client as we use it: it says little and gives up soon; and how its failures are told.

MLflow takes more than a second to import, so that it is imported where it is first needed.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.redact import redact
from pipelines.errors import UserError, first_line, machine_error
from pipelines.tracking.store import database_of, is_file, own_database

if TYPE_CHECKING:
    import mlflow

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}  # MLflow's own: minutes
SCHEMA = re.compile(r"database schema \(found version (\w+), but expected|locate revision identified by '(\w+)'")
QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}  # a bar a file, among our own


def store_client(uri: str) -> mlflow.MlflowClient:
    """Make a client of the store and of its registry that says little and gives up soon."""
    import mlflow

    for name, value in {**PATIENCE, **QUIET}.items():
        os.environ.setdefault(name, value)
    for talkative in ("alembic", "mlflow.pyfunc"):  # every table and check that they make
        logging.getLogger(talkative).setLevel(logging.WARNING)
    # it prints the trace of every error of a database, which is raised as well and told in a line
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if is_file(uri):
        _make_whole(database_of(uri))
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make_whole(database: Path) -> None:
    """Make a database that is not there yet: whole or not at all, as one that was half made can never be used."""
    if database.exists() or not database.parent.is_dir():
        return
    import mlflow

    with tempfile.TemporaryDirectory(prefix=f".{database.name}-", dir=database.parent) as aside:
        mlflow.MlflowClient(tracking_uri=own_database(Path(aside))).search_experiments()
        with suppress(FileExistsError):  # another process was first
            os.link(database_of(own_database(Path(aside))), database)


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
    if is_file(uri):
        refused = machine_error(error, str(database_of(uri)))
        if refused is not None:
            return refused
    if (schema := SCHEMA.search(str(error))) is not None:
        return _other_schema(uri, schema[1] or schema[2])
    return UserError(
        f"MLflow's store {redact(uri)} cannot be used ({in_short(error)}): "
        "start it, or set tracking.uri, or leave tracking.uri out for a database in the home folder"
    )


def _other_schema(uri: str, found: str) -> UserError:
    """Make the error of a database that another MLflow has made: an older one, whose schema is known, or a newer."""
    import mlflow

    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    made = f"MLflow's store {redact(uri)} was made by another version of MLflow (schema {found})"
    if any(migrations.glob(f"*{found}*")):
        return UserError(f"{made}, older than {mlflow.__version__}: take a copy of it, then run: mlflow db upgrade "
                         f"{redact(uri)}")  # fmt: skip
    return UserError(f"{made}, newer than {mlflow.__version__}: pip install --upgrade mlflow, or set tracking.uri to "
                     "another store")  # fmt: skip


def in_short(error: Exception) -> str:
    """Say what an exception says, for a message of one line: short and without secrets."""
    return textwrap.shorten(redact(first_line(error)), 200, placeholder=" ...")

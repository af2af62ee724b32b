"""Where MLflow keeps runs and models. Knows the addresses only, so that asking for one imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.config.home_location import origin
from pipelines.config.schema import Config
from pipelines.errors import UserError


def store_uri(tracking_uri: str | None, home: Path) -> str:
    """Take `tracking.uri`, else ``MLFLOW_TRACKING_URI``, else a database in the home folder."""
    given = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if given is None and origin(home) is not None:
        raise UserError(f"home={origin(home)}: runs are kept by a server or in a database, and none can lie there; set "
                        "MLFLOW_TRACKING_URI or tracking.uri, e.g. to http://HOST:5000")  # fmt: skip
    return given or f"sqlite:///{home / 'mlflow.db'}"


def store_of(config: Config) -> str:
    """Return the store that a configuration reports to."""
    return store_uri(config.tracking.uri, config.home_path)


def is_server(uri: str) -> bool:
    """Say whether a server answers there, which keeps the artifacts as well; otherwise it is a database."""
    return uri.startswith(("http://", "https://", "databricks"))


def artifact_root(home: Path) -> Path:
    """Return the folder of plots, tables and models of runs that are kept in a database."""
    return home / "mlartifacts"

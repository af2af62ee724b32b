"""Where MLflow keeps runs and models. Knows the addresses only, so that asking for one imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote

from pipelines.config.home_location import origin
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.tracking.moved import follow_home

SQLITE, ESCAPED = "sqlite:///", "sqlite+pysqlite:///"


def store_uri(tracking_uri: str | None, home: Path) -> str:
    """Take `tracking.uri`, else ``MLFLOW_TRACKING_URI``, else a database in the home folder."""
    given = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if given is None and origin(home) is not None:
        raise UserError(f"home={origin(home)}: runs are kept by a server or in a database, and none can lie there; set "
                        "MLFLOW_TRACKING_URI or tracking.uri, e.g. to http://HOST:5000")  # fmt: skip
    return given or own_database(home)


def store_of(config: Config) -> str:
    """Return the store that a configuration reports to; the home's own names the home's files where they are now."""
    uri = store_uri(config.tracking.uri, config.home_path)
    if uri == own_database(config.home_path):
        follow_home(database_of(uri), artifact_root(config.home_path))
    return uri


def own_database(home: Path) -> str:
    """Return the address of the database in a home, whatever characters the home's name has.

    MLflow makes a folder of the path after sqlite:/// as it stands, so an address with escapes names the driver too.

    >>> own_database(Path("/a b")), own_database(Path("/a%20b"))
    ('sqlite:////a b/mlflow.db', 'sqlite+pysqlite:////a%2520b/mlflow.db')
    """
    path = str(home / "mlflow.db")
    return f"{ESCAPED}{quote(path, safe='/ ')}" if set(path) & set("%?#") else f"{SQLITE}{path}"


def database_of(uri: str) -> Path:
    """Find the file of a database of SQLite's."""
    return Path(unquote(uri.removeprefix(SQLITE).removeprefix(ESCAPED)))


def is_file(uri: str) -> bool:
    """Say whether the store is a file of this machine: a database of SQLite's."""
    return uri.startswith((SQLITE, ESCAPED))


def is_server(uri: str) -> bool:
    """Say whether a server answers there, which keeps the artifacts as well; otherwise it is a database."""
    return uri.startswith(("http://", "https://", "databricks"))


def imports_of(tracking_uri: str | None) -> tuple[str, ...]:
    """Name what a client of the store is going to import, for who has other work to do meanwhile.

    MLflow imports what speaks to a database with the first question only: as much again as MLflow itself.

    >>> imports_of("http://mlflow:5000")
    ('mlflow',)
    >>> imports_of("sqlite:////home/mlflow.db")
    ('mlflow', 'mlflow.store.tracking.sqlalchemy_store')
    """
    given = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    of_databases = () if given is not None and is_server(given) else ("mlflow.store.tracking.sqlalchemy_store",)
    return ("mlflow", *of_databases)


def artifact_root(home: Path) -> Path:
    """Return the folder of plots, tables and models of runs that are kept in a database."""
    return home / "mlartifacts"

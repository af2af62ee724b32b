"""A home that was moved or copied: MLflow's database in it names files by whole paths, which lead to the old place.

So the paths in it are brought to where the home is now, by the first command that uses it there. No MLflow.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipelines.progress import console

PLACES = {  # tables and columns of MLflow's that hold URIs of files, or what we have written
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "model_versions": "source",
    "logged_models": "artifact_location",
}
PATHS = {"tags": "value", "model_version_tags": "value", "logged_model_tags": "tag_value"}  # of ours, as plain paths
WAIT_S = 30.0  # for another process that writes


@lru_cache(maxsize=16)  # a process sees a home in one place
def follow_home(database: Path, artifacts: Path) -> None:
    """Make the database name the files below `artifacts`, if it names those of another folder of that name.

    Parameters
    ----------
    database : in the home.
    artifacts : the folder of the home's artifacts.
    """
    if not database.is_file():
        return
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=WAIT_S)) as store:
        olds = _others(store, artifacts)
    if not olds:
        return
    with closing(sqlite3.connect(database, timeout=WAIT_S)) as store, store:
        for old in olds:
            _rewrite(store, PLACES, f"{old.as_uri()}/", f"{artifacts.as_uri()}/")
            _rewrite(store, PATHS, f"{old.parent}/", f"{artifacts.parent}/")
    console.print(f"The home was moved here from {', '.join(str(old.parent) for old in olds)}: its runs and models too")


def _others(store: sqlite3.Connection, artifacts: Path) -> list[Path]:
    """List the folders of artifacts that the experiments name, other than this one."""
    try:
        found = store.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    except sqlite3.Error:  # no database of MLflow's: MLflow says so
        return []
    roots: list[Path] = []
    for (location,) in found:
        if (location or "").startswith("file://"):
            root = Path(url2pathname(urlsplit(location).path)).parent
            if root.name == artifacts.name and root not in (artifacts, *roots):
                roots.append(root)
    return roots


def _rewrite(store: sqlite3.Connection, columns: dict[str, str], old: str, new: str) -> None:
    tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, column in columns.items():
        if table in tables:
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )

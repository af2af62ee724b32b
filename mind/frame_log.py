"""Frames as a log of a home: Parquet files, and a configuration beside them that every command takes as well.

<home>/frames/<name>/events-<digest>.parquet, items-..., profile-...
<home>/frames/<name>/config.yaml
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from pipelines.config.home_location import shown
from pipelines.config.load import merge
from pipelines.config.names import home_place
from pipelines.errors import UserError, first_line
from pipelines.storage.digests import table_digest
from pipelines.storage.home_files import exists, names, remove
from pipelines.storage.tables import write_scratch, write_text

HEAD = "# Written by mind.Dataset.from_frame, again whenever it is called. Commands take it: mind evaluate {file}\n"


def write_log(home: Path, name: str, tables: Mapping[str, pa.Table], settings: Mapping[str, Any]) -> Path:
    """Write tables and their configuration; the path of the configuration.

    A table that is there already, with the same content, is left as it is: the dataset made of it stays up to date.

    Parameters
    ----------
    tables : ``events``, perhaps ``items`` and ``profile``: sections of ``data``, which get their paths here.
    settings : the configuration but for these paths, ``name`` and ``home``.

    Raises
    ------
    UserError
        For a column of a kind that Parquet does not hold.
    """
    folder = home_place(home, "frames", name)
    paths = {kind: _stored(table, folder, kind) for kind, table in tables.items()}
    places = {kind: {"path": shown(path)} for kind, path in paths.items()}
    file = folder / "config.yaml"
    values = merge({"name": name, "home": shown(home), "data": places}, dict(settings))
    text = HEAD.format(file=shown(file)) + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    write_text(text, file)
    for old in {each for each in names(folder) if each.endswith(".parquet")} - {path.name for path in paths.values()}:
        remove(folder / old)  # of an earlier frame
    return file


def _stored(table: pa.Table, folder: Path, kind: str) -> Path:
    try:
        path = folder / f"{kind}-{table_digest(table)[:16]}.parquet"
        if not exists(path):
            write_scratch(table, path)
    except pa.ArrowException as error:
        raise UserError(f"{kind}: a column cannot be stored ({first_line(error)}); leave it out") from None
    return path


def table_section(id_column: str, features: Any, show: Iterable[str], table: pa.Table, what: str) -> dict[str, Any]:
    """Write the section of a feature table: ``data.items`` or ``data.profile``.

    Parameters
    ----------
    features : columns by their settings, as in a configuration; or their names, whose kind is then told by the type.
    """
    if isinstance(features, str) or not isinstance(features, Iterable):
        argument = f"{what.removesuffix('s')}_features"
        raise UserError(f"{argument}={features!r}: must be a list of columns, or a mapping of columns to settings")
    columns = (
        dict(features) if isinstance(features, Mapping) else {name: guessed(table, name, what) for name in features}
    )
    for name in [*columns, *show]:
        require_column(table, name, what)
    return {"id": id_column, "features": {name: dict(kind) for name, kind in columns.items()}, "show": list(show)}


def guessed(table: pa.Table, name: str, what: str) -> dict[str, str]:
    """Guess a feature's kind by its column: fractions are numeric, lists have several values, the rest are categories.

    >>> guessed(pa.table({"price": [1.5], "genres": [["a"]], "brand": ["x"]}), "price", "items")
    {'kind': 'numeric'}
    """
    require_column(table, name, what)
    kind = table.schema.field(name).type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return {"kind": "numeric"}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"kind": "multi"}
    return {"kind": "categorical"}


def require_column(table: pa.Table, name: str, what: str) -> None:
    """See that a frame has a column; a UserError with those that it has."""
    if name not in table.column_names:
        raise UserError(f"{what}: no column {name!r}; it has {', '.join(map(str, table.column_names))}")

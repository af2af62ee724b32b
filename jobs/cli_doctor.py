"""``mind doctor``: versions, machine and reach in one block of text."""

from __future__ import annotations

from typing import Any

import typer

from jobs.options import Home
from pipelines.errors import UserError


def doctor(home: Home = None) -> Any:
    """Say what this machine and installation are, and what is in the way: a block to paste into an issue."""
    from jobs.doctor import as_lines, diagnose, home_of
    from pipelines.tracking.store import store_uri

    folder = home_of(home)
    try:
        store = None if folder is None else store_uri(None, folder)
    except UserError:  # a home in an object store, without a server for the runs
        store = None
    found = diagnose(folder, store)
    for line in as_lines(found):
        typer.echo(line)
    if found.problems:
        typer.echo("mind: what is in the way stands in the lines `problem:`", err=True)
    return found

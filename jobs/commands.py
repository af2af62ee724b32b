"""A group of commands, with the ways in which a command may end. The one place where what a disk or the memory refuses
becomes one line.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from pipelines.errors import machine_error, user_error
from pipelines.stopping import exit_code, heed_sigterm

STOPPED = {130: "interrupted", 143: "terminated"}  # exit codes after Ctrl-C and SIGTERM


class Commands(TyperGroup):
    """A user's mistake, a full disk and an empty memory are one line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; any other exception keeps its traceback."""
        heed_sigterm()
        try:
            return super().invoke(ctx)
        except BaseException as error:
            if (code := exit_code(error)) is not None:
                typer.echo(f"mind: {STOPPED[code]}", err=True)
                raise typer.Exit(code) from None
            mistake = user_error(error) or machine_error(error)
            if mistake is None:
                raise
            from pipelines.config.redact import redact  # imports pydantic

            typer.echo(f"mind: error: {redact(' '.join(str(mistake).split()))}", err=True)
            raise typer.Exit(2) from None

"""A group of commands, with the ways in which a command may end. The one place where what a disk or the memory refuses
becomes one line.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

import typer
from typer.core import TyperGroup

from pipelines.errors import machine_error, user_error


class Commands(TyperGroup):
    """A user's mistake, a full disk and an empty memory are one line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; any other exception keeps its traceback."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminated)  # until Ray starts, which exits in the same way
        try:
            return super().invoke(ctx)
        except SystemExit as ended:
            if ended.code != signal.SIGTERM:
                raise
            typer.echo("mind: terminated", err=True)
            raise typer.Exit(128 + signal.SIGTERM) from None
        except KeyboardInterrupt:
            typer.echo("mind: interrupted", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            mistake = user_error(error) or machine_error(error)
            if mistake is None:
                raise
            from pipelines.config.redact import redact  # imports pydantic

            typer.echo(f"mind: error: {redact(' '.join(str(mistake).split()))}", err=True)
            raise typer.Exit(2) from None


def _terminated(*_: object) -> None:
    """End as Ray does on SIGTERM: by an exception, so that whoever holds something lets it go."""
    raise SystemExit(int(signal.SIGTERM))

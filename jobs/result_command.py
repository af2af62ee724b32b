"""``--json`` and ``--quiet`` of every command: what a command returns is its result, printed as one JSON document.

With ``--json`` whatever else would go to standard output, from Ray's processes too, goes to standard error: a program
that reads the output reads JSON or, after a mistake, nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Annotated, Any, TextIO, TypeVar

import typer
from typer.core import TyperCommand

F = TypeVar("F", bound=Callable[..., Any])
JSON, QUIET = "mind.json", "mind.quiet"  # keys of a command's context
_asked_for_json: ContextVar[bool] = ContextVar("asked_for_json", default=False)
_output_file: ContextVar[int] = ContextVar("output_file", default=1)


def asked_for_json() -> bool:
    """Say whether the command that runs was given ``--json``."""
    return _asked_for_json.get()


def output_file() -> int:
    """Return the number of the file that is the standard output of the command, whatever stands for it meanwhile."""
    return _output_file.get()


def _note(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> bool:
    context.meta[JSON if parameter.name == "as_json" else QUIET] = value
    return value


def _with_json(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", callback=_note, expose_value=False, help="Print the result as JSON, all else to standard error."
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", callback=_note, expose_value=False, help="No progress and no remarks."),
    ] = False,
) -> None: ...


def _options() -> list[Any]:
    """Make the two options as Typer makes those of a function."""
    app = typer.Typer(add_completion=False)
    app.command()(_with_json)
    return list(typer.main.get_command(app).params)


class ResultCommand(TyperCommand):
    """A command with a result, which `jobs.results` has a type for."""

    def __init__(self, *args: Any, params: list[Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, params=[*(params or []), *_options()], **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command as its two options ask."""
        with ExitStack() as stack:
            if ctx.meta.get(QUIET):
                stack.enter_context(_silence(tables_too=ctx.meta.get(JSON, False)))
            if not ctx.meta.get(JSON):
                return super().invoke(ctx)
            real = stack.enter_context(_json_alone())
            result = super().invoke(ctx)
            from jobs.results import document

            name = " ".join(["mind", *ctx.command_path.split()[1:]])  # whatever the program is called
            real.write(document(name, result) + "\n")
            real.flush()
        return result


@contextmanager
def _silence(tables_too: bool) -> Iterator[None]:
    from pipelines.progress import console, output

    before = console.quiet, output.quiet
    console.quiet, output.quiet = True, tables_too or output.quiet
    try:
        yield
    finally:
        console.quiet, output.quiet = before


@contextmanager
def _json_alone() -> Iterator[TextIO]:
    """Yield the real standard output; everything else that is written there meanwhile goes to standard error."""
    token, before = _asked_for_json.set(True), sys.stdout
    before.flush()
    with ExitStack() as stack:
        real: TextIO = before
        if _is_file_one(before):
            kept = os.dup(1)
            stack.callback(_output_file.reset, _output_file.set(kept))
            real = stack.enter_context(os.fdopen(kept, "w", encoding="utf-8"))
            os.dup2(2, 1)  # of this process and of those that it starts
        sys.stdout = sys.stderr
        try:
            yield real
        finally:
            real.flush()
            if real is not before:
                os.dup2(real.fileno(), 1)
            sys.stdout = before
            _asked_for_json.reset(token)


def _is_file_one(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except (OSError, ValueError):  # of a test, say
        return False


class ResultApp(typer.Typer):
    """An app whose commands have results, unless `cls` says otherwise."""

    def command(self, name: str | None = None, **given: Any) -> Callable[[F], F]:
        """Add a command, as Typer does; takes what Typer takes."""
        return super().command(name, **{"cls": ResultCommand, **given})

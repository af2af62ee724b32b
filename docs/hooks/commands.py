"""The manual of every command, made of the Typer app that parses them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import typer

from docs.hooks.markdown import cell, code
from jobs.cli import app

WORDS = {"str": "TEXT", "int": "N", "float": "X", "Path": "PATH"}


def commands(group: Any = None, prefix: str = "mind") -> Iterator[tuple[str, Any]]:
    """List the commands by their whole name, ``mind jobs list`` for instance; groups stand before their commands."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if not command.hidden:
            yield f"{prefix} {name}", command
            if hasattr(command, "commands"):
                yield from commands(command, f"{prefix} {name}")


def commands_page() -> str:
    """Write the page of the commands."""
    lines = [
        "# Commands",
        "",
        "`mind COMMAND --help` shows the same in a terminal. `mind --install-completion` lets the Tab key complete "
        "commands and options in your shell.",
        "",
        "| exit code | means |",
        "|---|---|",
        "| 0 | done. `mind promote` ends so whatever it decides |",
        "| 1 | an error of the program: it keeps its traceback, please report it with the block of `mind doctor` |",
        "| 2 | a mistake in a file, an option or the data, or a full disk or memory: one line says what to change |",
        "| 3, 4 | of `mind submit` and `mind jobs logs --follow`: the job was stopped; the connection was lost |",
        "| 130, 143 | stopped by Ctrl-C, by SIGTERM: the same command goes on |",
        "",
        "Results go to standard output, progress and remarks to standard error. In a pipe or a file no table is cut "
        "and no line is broken. `--json` prints [results as JSON](json.md), `--quiet` leaves out progress and remarks.",
        "",
    ]
    root = typer.main.get_command(app)
    lines += ["## mind", "", *_options(root), ""]
    for name, command in commands(root):
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        usage = " ".join([name, *map(metavar, arguments), *(["[OPTIONS]"] if _options(command) else [])])
        text = inspect.cleandoc(command.help or "")
        lines += [f"## {name}", "", cell(text), ""]
        if not hasattr(command, "commands"):
            lines += ["```text", usage, "```", ""]
        if arguments:
            lines += ["| argument | |", "|---|---|"]
            lines += [f"| {code(metavar(each))} | {cell(each.help or '')} |" for each in arguments] + [""]
        lines += [*_options(command), ""]
    return "\n".join(lines)


def metavar(parameter: Any) -> str:
    """Say what stands for a parameter's value, as the help does."""
    if parameter.metavar:
        return str(parameter.metavar)
    annotation = parameter.type_descriptor.annotation
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if parameter.param_type_name == "argument":
        return str(parameter.name.upper())
    inner = get_args(annotation)[0] if get_args(annotation) else annotation
    return WORDS.get(inner.__name__, "VALUE")


def _options(command: Any) -> list[str]:
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    if not options:
        return []
    rows = []
    for each in options:
        names = ", ".join([*each.opts, *each.secondary_opts])
        value = "" if each.is_flag else f" {metavar(each)}"
        given = each.default is not None and not each.is_flag and not each.multiple
        default = f" Default: {code(str(each.default))}." if given else ""
        rows.append(f"| {code(names + value)} | {cell(each.help or '')}{default} |")
    return ["| option | |", "|---|---|", *rows]

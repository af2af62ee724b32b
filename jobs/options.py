"""Options that several commands take, and what becomes of them: a configuration, a home, the next command."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.config.schema import Config

OUT_SUFFIXES = (".parquet", ".csv", ".jsonl")  # of a file of lists

Conf = Annotated[Path, typer.Argument(metavar="CONF", help="YAML file of the campaign, e.g. conf/ml-1m.yaml")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="A.B=C", help="Override one setting, e.g. train.epochs=3. May be repeated."),
]
Preset = Annotated[
    str | None, typer.Option("--preset", help="default, context, paper, sasrec, youtube_dnn or popularity.")
]
Home = Annotated[
    str | None, typer.Option("--home", help="Folder of datasets, models and runs; before MIND_HOME and the file.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Model folder or models:/ URI. Without it: the newest one trained for CONF."),
]

Top = Annotated[int | None, typer.Option("--top", "-n", metavar="N", help="Items per user.")]
Latest = Annotated[bool, typer.Option("--latest", help="Infer from all that is known, the held-out events too.")]
ExportLatest = Annotated[
    bool,
    typer.Option("--latest/--as-evaluated", help="Infer from all events, or leave out the held-out ones, as evaluate."),
]


def loaded_config(conf: Path, sets: list[str] | None, preset: str | None, home: str | None) -> Config:
    """Load the configuration of a command that takes CONF."""
    from pipelines.config.load import load_config

    home_set = [] if home is None else [f"home={json.dumps(home)}"]  # quoted, so that YAML takes it as it is
    return load_config(conf, [*(sets or []), *home_set], preset)


def warm_config(conf: Path, sets: list[str] | None, preset: str | None, home: str | None) -> Config:
    """Load the configuration of a command that computes; where `mind up` has a process ready, it goes on in that."""
    config = loaded_config(conf, sets, preset, home)
    from jobs.result_command import output_file
    from pipelines.cluster.hand_over import hand_over

    hand_over(config.home_path, output_file())
    return config


def with_top(sets: list[str] | None, top: int | None, again: int | None = None, new: int | None = None) -> list[str]:
    """Combine what --set sets with --top, or with --again and --new in its place."""
    if top is not None and (again, new) != (None, None):
        raise UserError("recommend: give either --top, or --again and --new")
    places = {"top_n": top, "again": again, "new": new}
    return [*(sets or []), *(f"evaluate.{name}={number}" for name, number in places.items() if number is not None)]


def list_file(out: str | None) -> Path | None:
    """Find where a file of lists is written: there, or in this machine's copy of a bucket; None without one.

    Raises
    ------
    UserError
        For a format that cannot be written, and a URI of another kind than homes have.
    """
    if out is None:
        return None
    from pipelines.config.home_location import home_folder

    try:
        path = home_folder(out) if "://" in out else Path(out)
    except ValueError as error:
        raise UserError(f"--out: {str(error).removeprefix('home=')}") from None
    if path.suffix not in OUT_SUFFIXES:
        raise UserError(f"--out {out}: must end in {', '.join(OUT_SUFFIXES)}")
    return path


def require_campaign(conf: Path | None, resume: str | None, preset: str | None = None) -> None:
    """See that `mind tune` is told which campaign, and once."""
    if (conf is None) == (resume is None):
        raise UserError("tune: give either CONF, a campaign's file, or --resume NAME")
    if resume is not None and preset is not None:
        raise UserError(f"--preset {preset}: must be left out with --resume, which goes on with a campaign as it was")


def require_extra(module: str, extra: str) -> None:
    """See that the packages of an extra are installed, by one of its modules."""
    try:
        import_module(module)
    except ImportError:
        raise UserError(
            f"{extra}: needs packages that are not installed: pip install 'mind-retrieval[{extra}]'"
        ) from None


def home_without_conf(home: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Find the home that a command without a configuration means."""
    return home or environment.get("MIND_HOME") or "mind_home"


def home_folder_of(home: str | None) -> Path:
    """Find the home's folder for a command without a configuration."""
    from pipelines.config.home_location import home_folder

    try:
        return home_folder(home_without_conf(home))
    except ValueError as error:
        raise UserError(str(error)) from None


def print_next(
    command: str, conf: Path, sets: list[str] | None, preset: str | None, home: str | None, *more: str
) -> None:
    """Print the command that comes after this one, with the same options but for secrets; nothing with --quiet."""
    from pipelines.config.redact import redact
    from pipelines.progress import console

    if console.quiet:
        return

    words = ["mind", command, str(conf), *more]
    for option, values in (("--preset", [preset]), ("--home", [home]), ("--set", sets or [])):
        words += [word for value in values if value is not None for word in (option, value)]
    typer.echo(f"next: {shlex.join(map(redact, words))}")

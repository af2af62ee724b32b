"""``mind up`` and ``mind down``: a Ray on this machine that the commands of a home find started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import Home, Sets, home_folder_of, loaded_config

if TYPE_CHECKING:
    from pipelines.config.schema import Config

Conf = Annotated[Path | None, typer.Argument(metavar="[CONF]", help="Whose home. Without it: --home, else MIND_HOME.")]


def up(
    conf: Conf = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            "--cpus", min=2, metavar="N", help="Logical CPUs. Without it: the cores, or what CONF trains with."
        ),
    ] = None,
    sets: Sets = None,
    home: Home = None,
) -> Any:
    """Start a Ray on this machine that stays: the commands of this home join it instead of starting their own."""
    from pipelines.cluster.keeper import up as start

    folder, config = _home(conf, sets, home)
    if config is not None:
        from pipelines.cluster.address import local_cpus

        cpus = cpus or local_cpus(config.ray, config.train.workers)
    found, new = start(folder, cpus)
    typer.echo(f"Ray {'is up' if new else 'was up'}: {found.cpus} CPUs, at {found.address}")
    typer.echo("mind down ends it")
    return found, new


def down(conf: Conf = None, sets: Sets = None, home: Home = None) -> Any:
    """End the Ray of mind up, with what is using it."""
    from pipelines.cluster.keeper import down as end

    was_up = end(_home(conf, sets, home)[0])
    typer.echo("Ray is down" if was_up else "No Ray was up")
    return was_up


def _home(conf: Path | None, sets: list[str] | None, home: str | None) -> tuple[Path, Config | None]:
    """Find the home, and the configuration that names it, if there is one."""
    if conf is None:
        return home_folder_of(home), None
    config = loaded_config(conf, sets, None, home)
    return config.home_path, config

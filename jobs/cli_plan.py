"""``mind plan``: what a log of a size would take, before there is a log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import Preset, Sets, loaded_config
from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.config.schema import Config

SIZES = ("events", "items", "users")


def plan(
    conf: Annotated[
        Path | None, typer.Argument(metavar="[CONF]", help="Whose settings to plan with. Without it: the defaults.")
    ] = None,
    events: Annotated[str | None, typer.Option("--events", metavar="E", help="1e9, 1_000_000, 10M ...")] = None,
    items: Annotated[str | None, typer.Option("--items", metavar="V", help="Of the catalogue.")] = None,
    users: Annotated[str | None, typer.Option("--users", metavar="U", help="With E / U events each.")] = None,
    zipf: Annotated[
        float, typer.Option("--zipf", min=0, help="Of the items' popularity, (20 + rank)^-ZIPF; 0: all alike.")
    ] = 1.0,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="As --set train.workers=N.")] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="Of the cluster. Without it: the fewest that hold the workers.")
    ] = None,
    machine: Annotated[
        list[str] | None,
        typer.Option("--machine", "-m", metavar="FIGURE=VALUE", help="Of a node, e.g. memory=256G. May be repeated."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure this machine's rates first: under a minute.")
    ] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Print every figure of the machine too.")] = False,
    sets: Sets = None,
    preset: Preset = None,
) -> Any:
    """Predict nodes, memory, network, hours and the next bottleneck of a log of some size. Nothing is run."""
    from pipelines.config.numbers import parse_whole
    from pipelines.plan.machine import Machine, with_figures
    from pipelines.plan.plan import make_plan
    from pipelines.plan.show import show_machine, show_plan
    from pipelines.plan.workload import Workload

    given = dict(zip(SIZES, (events, items, users), strict=True))
    missing = [f"--{name}" for name, text in given.items() if text is None]
    only_measured = measure and len(missing) == len(given)
    if missing and not only_measured:
        raise UserError(f"plan: {', '.join(missing)} missing; for example --events 1e9 --items 1e8 --users 1e7")
    sizes = {name: parse_whole(text, f"--{name}") for name, text in given.items() if text is not None}
    config = _config(conf, [*(sets or []), *([] if workers is None else [f"train.workers={workers}"])], preset)
    workload = None if only_measured else Workload(**sizes, config=config, zipf=zipf)
    known = with_figures(Machine(), machine or [])  # a mistake is told before a minute of measuring
    if measure:
        from pipelines.plan.measure import measured

        known = with_figures(measured(Machine(), config), machine or [])
    if measure or figures:
        show_machine(known)
    if workload is None:
        return known, None
    made = make_plan(workload, known, nodes)
    show_plan(made)
    return known, made


def _config(conf: Path | None, sets: list[str], preset: str | None) -> Config:
    """Load the file, or the defaults with the name ``plan``."""
    if conf is not None:
        return loaded_config(conf, sets, preset, None)
    return loaded_config(Path(os.devnull), ["name=plan", "data.events.path=none", *sets], preset, None)

"""Where a step's time went (`mind train --profile`): as metrics of a report, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from mind_core.profiling import PHASES, StepTimes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREFIX = "profile/"


def profile_metrics(times: StepTimes) -> dict[str, float]:
    """Return ``profile/<phase>_ms``: milliseconds of a step, the mean of this worker's steps so far."""
    return {f"{PREFIX}{name}_ms": 1000 * times.seconds[name] / max(1, times.steps) for name in PHASES}


def phases(metrics: Mapping[str, float]) -> dict[str, float]:
    """Read milliseconds by phase from a report's metrics; empty without any."""
    named = {name: f"{PREFIX}{name}_ms" for name in PHASES}
    return {name: metrics[key] for name, key in named.items() if key in metrics}


def profile_columns(milliseconds: Mapping[str, float]) -> dict[str, list[str | float]]:
    """Make the columns of MLflow's table: phase, milliseconds of a step, share of it."""
    total = sum(milliseconds.values()) or 1.0
    values = list(milliseconds.values())
    return {"phase": list(milliseconds), "ms": list(values), "share": [value / total for value in values]}


def profile_table(milliseconds: Mapping[str, float]) -> Table:
    """Make the table to print."""
    table = Table("phase", "ms of a step", "share", title="Where a step's time went (rank 0)")
    total = sum(milliseconds.values()) or 1.0
    for name, value in milliseconds.items():
        table.add_row(name, f"{value:.2f}", f"{value / total:.0%}")
    table.add_row("all", f"{total:.2f}", "")
    return table


def profile_figure(milliseconds: Mapping[str, float]) -> Figure:
    """Draw one bar a phase, in the order of a step."""
    from matplotlib.figure import Figure  # slow to import, and hardly a training is profiled

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    names, values = list(milliseconds), list(milliseconds.values())
    total = sum(values) or 1.0
    bars = axes.barh(names, values, color="#1b6ca8")
    axes.bar_label(bars, [f"{value:.1f} ms · {value / total:.0%}" for value in values], padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(values, default=1.0))
    axes.set_xlabel("milliseconds of a step")
    axes.set_title(f"A step of {total:.1f} ms", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure

"""What a section of the training benchmark hands back, and how it is printed: as plain text where rich is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sheet:
    """A table of text; `notes` say below it how to read it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """A figure that the issue asks for: `value` is to be at least `goal`."""

    what: str
    value: float
    goal: float

    @property
    def met(self) -> bool:
        return self.value >= self.goal


@dataclass(frozen=True)
class Finding:
    """What a section found: `figures` for the JSON file, `sheets` to read, `targets` to sum up."""

    figures: dict[str, Any]
    sheets: list[Sheet]
    targets: list[Target] = field(default_factory=list)


def show(sheet: Sheet) -> None:
    """Print a sheet to standard output."""
    try:
        _show_rich(sheet)
    except ImportError:
        _show_plain(sheet)


def show_finding(finding: Finding) -> None:
    """Print all of a section's sheets."""
    for sheet in finding.sheets:
        show(sheet)


def targets_sheet(targets: list[Target]) -> Sheet:
    """What was asked for against what was measured."""
    rows = [[t.what, f"{t.value:.2f}", f"{t.goal:g}", "met" if t.met else "missed"] for t in targets]
    return Sheet("Targets", ["ratio", "measured", "at least", ""], rows)


def _show_rich(sheet: Sheet) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    table = Table(title=sheet.title, title_justify="left")
    for number, column in enumerate(sheet.columns):
        table.add_column(column, justify="right" if number else "left")
    for row in sheet.rows:
        table.add_row(*row)
    console.print(table)
    for note in sheet.notes:
        console.print(f"  {note}", style="dim", highlight=False)
    console.print()


def _show_plain(sheet: Sheet) -> None:
    lines = [sheet.columns, *sheet.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(sheet.title)
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print("  " + "  ".join(cells))
    for note in sheet.notes:
        print(f"  {note}")
    print()

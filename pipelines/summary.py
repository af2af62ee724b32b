"""What `mind preprocess` prints at its end: rows kept and set aside by reason, the splits, the next command."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from pipelines.dataset import Dataset


def print_summary(dataset: Dataset, config_file: str, console: Console | None = None) -> None:
    """Print the summary of a dataset to standard output.

    Parameters
    ----------
    dataset
        The one just made.
    config_file
        As the user typed it; it stands in the next command.
    console
        Where to print; None: standard output.
    """
    console = console or Console()
    manifest = dataset.manifest
    rows = Table(title=f"Dataset {manifest.name}", title_justify="left")
    rows.add_column("rows of the log")
    rows.add_column("count", justify="right")
    rows.add_column("share", justify="right")
    rows.add_row("read", f"{manifest.rows_read:,}", "")
    for reason, count in sorted(manifest.set_aside.items(), key=lambda pair: (-pair[1], pair[0])):
        rows.add_row(f"  set aside: {reason}", f"{count:,}", f"{count / manifest.rows_read:.1%}")
    rows.add_row("kept as events", f"{manifest.events:,}", f"{manifest.events / manifest.rows_read:.1%}")
    console.print(rows)
    splits = Table()
    for name in ("split", "users", "events", "targets", "users left out"):
        splits.add_column(name, justify="left" if name == "split" else "right")
    for name, counts in manifest.splits.items():
        numbers = (counts.users, counts.events, counts.targets, counts.skipped_users)
        splits.add_row(name, *(f"{number:,}" for number in numbers))
    console.print(splits)
    features = ", ".join(
        f"{side} {info.name} ({info.kind}{f', {info.size:,} rows' if info.size else ''})"
        for side, infos in (("item", manifest.item_features), ("profile", manifest.profile_features))
        for info in infos
    )
    console.print(f"{manifest.users:,} users, {manifest.items:,} items{'; features: ' + features if features else ''}")
    console.print(f"written to {dataset.path}", soft_wrap=True)
    console.print(f"next: mind train {config_file}", soft_wrap=True)

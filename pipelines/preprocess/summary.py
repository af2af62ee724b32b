"""What `mind preprocess` says at its end, on the terminal and in MLflow: rows set aside by reason, and the splits."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from pipelines.config.home_location import shown
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset, described_data
from pipelines.progress import output
from pipelines.quality.report import Quality
from pipelines.storage.home_files import exists, fetch
from pipelines.tracking.notes import note
from pipelines.tracking.run import open_run
from pipelines.words import counted


def print_summary(dataset: Dataset, console: Console | None = None) -> None:
    """Print the summary of a dataset to standard output.

    Parameters
    ----------
    dataset
        The one just made.
    console
        Where to print; None: standard output.
    """
    console = console or output
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
    known = f"; features: {features}" if features else ""
    console.print(f"{counted(manifest.users, 'user')}, {counted(manifest.items, 'item')}{known}")
    console.print(f"written to {dataset}", soft_wrap=True)
    quality = Quality.read(dataset.layout)
    if quality is None:
        return
    console.print(f"data quality: {shown(dataset.layout.quality_page)}", soft_wrap=True)
    for line in quality.lines():
        console.print(f"  {line}", markup=False, soft_wrap=True, highlight=False)


def _found(dataset: Dataset) -> list[str]:
    """Say how much of the log was kept, and what is odd about it."""
    manifest, quality = dataset.manifest, Quality.read(dataset.layout)
    lines = [f"{counted(manifest.rows_read, 'row')} read, {manifest.events:,} kept."]
    lines += [f"Set aside: {count:,}, {reason}." for reason, count in sorted(manifest.set_aside.items())]
    return lines + [f"{check.level}: {check.name}: {check.found}" for check in (quality.warnings if quality else [])]


def record_summary(config: Config, dataset: Dataset) -> None:
    """Record a dataset as a run of stage preprocess: its counts, its lineage and its manifest."""
    manifest = dataset.manifest
    counts = {"rows/read": manifest.rows_read, "events": manifest.events}
    counts |= {"users": manifest.users, "items": manifest.items}
    counts |= {f"rows/set aside/{reason}": count for reason, count in manifest.set_aside.items()}
    counts |= {f"{name}/users": split.users for name, split in manifest.splits.items()}
    with open_run(config, "preprocess", manifest.name) as run:
        run.log_metrics(counts, 0)
        source = manifest.sources["events"][0]["path"]
        sizes = {"users": manifest.users, "items": manifest.items, "events": manifest.events}
        run.log_dataset(manifest.name, manifest.fingerprint, source, "preprocessing", sizes)
        run.describe(note("The log made into a dataset.", described_data(manifest), _found(dataset), "mind train CONF"))
        run.log_artifact(dataset.layout.manifest)
        if exists(dataset.layout.engine):
            run.log_artifact(fetch(dataset.layout.engine))
        quality = Quality.read(dataset.layout)
        if quality is not None:
            run.log_metrics(quality.metrics(), 0)
            run.log_artifact(dataset.layout.quality)
            run.log_artifact(fetch(dataset.layout.quality_page))  # at a URI nobody has read it here

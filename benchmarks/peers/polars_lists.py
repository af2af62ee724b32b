"""The same work in plain Polars, one script, one machine, all in memory: what `mind preprocess` is measured against.

    python polars_lists.py LOG OUT

Rows without user, item or time dropped, equal rows dropped, an item vocabulary by count, encoded lists per user, oldest
first, split leave-one-out, as Parquet with zstd.
"""

import sys
from pathlib import Path

import polars as pl

FIRST_ITEM = 2


def main(log: str, out: Path) -> None:
    """Read LOG/*.parquet, write the tables below OUT."""
    out.mkdir(parents=True)
    events = (
        pl.scan_parquet(f"{log}/*.parquet")
        .select("user_id", "item_id", "time")
        .drop_nulls()
        .unique()
        .sort("user_id", "time", "item_id")
        .collect(engine="streaming")
    )
    counts = events.group_by("item_id").len("count")
    items = counts.sort("count", "item_id", descending=[True, False]).with_row_index("index", offset=FIRST_ITEM)
    lists = (
        events.lazy()
        .join(items.lazy().select("item_id", "index"), on="item_id", maintain_order="left")
        .group_by("user_id", maintain_order=True)
        .agg(pl.col("index").cast(pl.Int32).alias("items"), pl.col("time").alias("times"))
        .with_row_index("user")
        .with_columns(length=pl.col("items").list.len())
        .collect()
    )
    held_out = lists.filter(pl.col("length") >= 3)
    known = pl.when(pl.col("length") >= 3).then(pl.col("length") - 2).otherwise(pl.col("length"))
    splits = {
        "train": lists.with_columns(known=known, targets=pl.lit([], pl.List(pl.Int32))),
        "validation": held_out.with_columns(known=pl.col("length") - 2, targets=pl.col("items").list.slice(-2, 1)),
        "test": held_out.with_columns(known=pl.col("length") - 1, targets=pl.col("items").list.slice(-1, 1)),
    }
    for name, rows in splits.items():
        history = [pl.col(column).list.head(pl.col("known")) for column in ("items", "times")]
        rows.select("user", *history, "targets").write_parquet(out / f"{name}.parquet", compression="zstd")
    items.write_parquet(out / "items.parquet", compression="zstd")
    lists.select("user", "user_id", "length").write_parquet(out / "users.parquet", compression="zstd")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

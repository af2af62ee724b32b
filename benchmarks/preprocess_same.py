"""One fingerprint however the log is cut into files, in any order of its rows, on one node or two.

Part of benchmarks/preprocess.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Options, say
from benchmarks.preprocess_runs import make_log, on_two_nodes, preprocess
from benchmarks.report import Finding, Sheet, Target

FILES = (1, 7, 64)


def run(options: Options) -> Finding:
    """Every cut of one log."""
    events = 200_000 if options.quick else 10_000_000
    table = pq.read_table(make_log(options, events))
    order = np.random.default_rng(0).permutation(table.num_rows)
    shuffled = table.take(pa.array(order))
    prints = {}
    for count in FILES:
        for name, rows in (("in order", table), ("shuffled", shuffled)):
            say(f"  {count} files, {name}")
            log = _cut(rows, count, options.scratch / "cut")
            prints[f"{count} file{'s' if count > 1 else ''}, rows {name}"] = preprocess(
                log, options.scratch / "same"
            ).fingerprint
    say("  two nodes")
    prints["7 files, two nodes"] = on_two_nodes(
        _cut(table, 7, options.scratch / "cut"), options.scratch / "nodes"
    ).fingerprint
    same = len(set(prints.values())) == 1
    rows_ = [[name, value[:16]] for name, value in prints.items()]
    sheet = Sheet(f"Fingerprint of {events:,} events", ["", "begins with"], rows_)
    return Finding({"fingerprints": prints}, [sheet], [Target("one fingerprint", float(same), 1)])


def _cut(table: pa.Table, files: int, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    size = -(-table.num_rows // files)
    for number in range(files):
        pq.write_table(table.slice(number * size, size), folder / f"{number:03d}.parquet")
    return folder

"""One fingerprint however the log is cut into files, in any order of its rows, on one node or two.

Part of benchmarks/preprocess.py
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import REPOSITORY, Options, say
from benchmarks.preprocess_runs import NAME, make_log, preprocess, write_conf
from benchmarks.report import Finding, Sheet, Target
from pipelines.dataset.dataset import Dataset

FILES = (1, 7, 64)

# a head and a worker node, each with a raylet and object store of its own, on this machine
TWO_NODES = """
import sys
from ray.cluster_utils import Cluster
from pipelines.config.load import load_config
from pipelines.preprocess.preprocess import preprocess
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
preprocess(load_config(sys.argv[1], [f"home={sys.argv[2]}", f"ray.address={cluster.address}"]))
cluster.shutdown()
"""


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
    prints["7 files, two nodes"] = two_nodes(_cut(table, 7, options.scratch / "cut"), options.scratch / "nodes")
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


def two_nodes(log: Path, home: Path) -> str:
    """Preprocess a log on a head and a worker node; the dataset's fingerprint."""
    conf = write_conf(log, home)
    environment = os.environ | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    subprocess.run(
        [sys.executable, "-c", TWO_NODES, str(conf), str(home)],
        cwd=REPOSITORY, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    return Dataset.open(home / "datasets" / NAME).manifest.fingerprint

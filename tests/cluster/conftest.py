"""A bed of its own for the tests, beside any that a person has up; one for all of them, as it takes long to start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from pipelines.preprocess.synthetic import generate
from tests.cluster.testbed import Testbed
from tests.cluster.testbed.services import BUCKET, storage

CONF = """\
name: {name}
home: s3://mind/home
data:
  events: {{path: {log}, user: user_id, item: item_id}}
train: {{workers: 2, threads: 1, epochs: 3, batch_size: 512}}
tracking: {{system_metrics: false}}
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    """Up, with two workers of one CPU, each on a host of its own; a file of tests has one to itself."""
    bed = Testbed(f"/tmp/mind-bed-{os.getpid()}")
    bed.up(workers=2)
    yield bed
    bed.down()


@pytest.fixture
def two_workers(bed: Testbed) -> list[str]:
    """The names of the bed's workers, two again whatever an earlier test has done to them."""
    names = bed.workers()
    for _ in range(2 - len(names)):
        names.append(bed.add_node().name)
    for surplus in names[2:]:
        bed.remove_node(surplus)
    return names[:2]


def upload(bed: Testbed, folder: Path, name: str) -> str:
    """Copy a folder to the bed's S3 server; its URI."""
    pafs.copy_files(str(folder), f"{BUCKET}/{name}", destination_filesystem=storage(bed.state))
    return f"s3://{BUCKET}/{name}"


@pytest.fixture(scope="session")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events of a few seconds' work."""
    return generate(tmp_path_factory.mktemp("log"), events=60_000, users=2_000, items=500).events


@pytest.fixture(scope="session")
def log_in_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events in several files, so that there are tasks to lose while others are done."""
    import pyarrow.parquet as pq

    events = pq.read_table(generate(tmp_path_factory.mktemp("log"), events=3_000_000, users=60_000, items=5_000).events)
    folder = tmp_path_factory.mktemp("files")
    rows = -(-len(events) // 12)
    for number in range(12):
        pq.write_table(events.slice(number * rows, rows), folder / f"part-{number:02d}.parquet")
    return folder

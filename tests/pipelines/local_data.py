"""A stand-in for Ray Data that runs a pipeline here and now: what hundreds of generated logs are tried on.

It knows what pipelines.cluster.ray_data and pipelines.preprocess ask of a dataset, no more. Tests that take the fixture
`ray_cluster` run on Ray itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.data
from ray.data import Datasource


class LocalDataset:
    """Blocks that are made anew whenever they are asked for."""

    def __init__(self, blocks: Callable[[], Iterator[pa.Table]]) -> None:
        self.blocks = blocks

    def map_batches(self, work: Callable[[pa.Table], Any], **_: Any) -> LocalDataset:
        def mapped() -> Iterator[pa.Table]:
            for block in self.blocks():
                if block.num_rows:
                    made = work(block)
                    yield from [made] if isinstance(made, pa.Table) else made

        return LocalDataset(mapped)

    def repartition(self, blocks: int, keys: list[str] | None = None) -> LocalDataset:
        def exchanged() -> Iterator[pa.Table]:
            whole = pa.concat_tables(list(self.blocks())).combine_chunks()
            if keys is None:
                yield whole
                return
            place = whole[keys[0]].to_numpy() * 7 % blocks  # several keys may share a block, and another stay empty
            for number in np.unique(place):
                yield whole.filter(pa.array(place == number))

        return LocalDataset(exchanged)

    def union(self, *others: LocalDataset) -> LocalDataset:
        return LocalDataset(lambda: (block for each in (self, *others) for block in each.blocks()))

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        return self.blocks()

    def stats(self) -> str:
        return "run without Ray"


def _from_arrow(tables: Iterable[pa.Table]) -> LocalDataset:
    return LocalDataset(lambda: iter(tables))


def _read_parquet(paths: list[str], filesystem: Any = None, **_: Any) -> LocalDataset:
    return LocalDataset(lambda: (pq.read_table(path, filesystem=filesystem) for path in paths))


def _read_datasource(source: Datasource, **_: Any) -> LocalDataset:
    return LocalDataset(lambda: (block for task in source.get_read_tasks(1) for block in task()))


@contextmanager
def local_data() -> Iterator[None]:
    """Run whatever asks Ray Data without it."""
    import pipelines.preprocess.append
    import pipelines.preprocess.preprocess

    @contextmanager
    def session(*_: Any, **__: Any) -> Iterator[None]:
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray.data, "from_arrow", _from_arrow)
        patch.setattr(ray.data, "read_parquet", _read_parquet)
        patch.setattr(ray.data, "read_datasource", _read_datasource)
        patch.setattr(ray, "put", lambda value: value)
        patch.setattr(ray, "get", lambda value: value)
        patch.setattr(ray, "cluster_resources", dict)
        for module in (pipelines.preprocess.preprocess, pipelines.preprocess.append):
            patch.setattr(module, "ray_session", session)
        yield

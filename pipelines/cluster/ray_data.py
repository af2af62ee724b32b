"""Ray Data as the engine of every pass over a log: how a pass is named, run, watched and measured.

A pass is a dataset whose last operator writes files and gives back one row for each piece of work: `key` and `record`,
a JSON text that says what was done. Operators carry the names of docs/preprocessing.md in Ray's dashboard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data

from pipelines.cluster.session import raise_user_error
from pipelines.progress import progress

Json = dict[str, Any]
Work = Callable[[pa.Table], "pa.Table | Iterator[pa.Table]"]
Report = Callable[[str], None]


def mapped(dataset: ray.data.Dataset, work: Work, name: str) -> ray.data.Dataset:
    """Map `work` over whole blocks, as Arrow tables without a copy, as operator `name`."""

    def call(block: pa.Table) -> pa.Table | Iterator[pa.Table]:
        return work(block)

    call.__name__ = call.__qualname__ = name  # Ray Data calls the operator MapBatches(name)
    return dataset.map_batches(call, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)


def each(task: Callable[..., Json], arguments: Mapping[str, tuple[Any, ...]], name: str) -> ray.data.Dataset:
    """Make a dataset of one row, in a block of its own, for each key: what ``task(key, *arguments[key])`` did.

    Parameters
    ----------
    task : must be safe to run twice, as Ray retries after a crash. An ObjectRef among its arguments is resolved.
    """
    given = ray.put(dict(arguments))

    def work(block: pa.Table) -> pa.Table:
        mine = ray.get(given)
        return records((key, task(key, *map(_resolved, mine[key]))) for key in block["key"].to_pylist())

    return mapped(pieces(list(arguments)), work, name)


def pieces(keys: Sequence[Any]) -> ray.data.Dataset:
    """Make a dataset of the column `key`, each row in a block, and so in a task, of its own."""
    return ray.data.from_arrow([pa.table({"key": [key]}) for key in keys])


def records(done: Iterable[tuple[str, Json]]) -> pa.Table:
    """Make a table of the columns key and record."""
    keys, values = [], []
    for key, value in done:
        keys.append(key)
        values.append(json.dumps(value, ensure_ascii=False))
    return pa.table({"key": pa.array(keys, pa.string()), "record": pa.array(values, pa.string())})


def executed(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """Yield a dataset's blocks, empty ones too, as they come.

    Raises
    ------
    UserError
        The one that an operator raised, as if it had been raised here.
    """
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except Exception as error:
        raise_user_error(error)
        raise


def run(dataset: ray.data.Dataset, what: str, total: int | None, report: Report = lambda _: None) -> Iterator[pa.Table]:
    """Execute a dataset and yield its non-empty blocks as they come.

    Parameters
    ----------
    what, total : of the progress bar, which counts rows.
    report : gets Ray Data's statistics of the operators once all is done.

    Raises
    ------
    UserError
        The one that an operator raised, as if it had been raised here.
    """
    with progress(what, total) as advance:
        for block in executed(dataset):
            if block.num_rows:
                advance(block.num_rows)
                yield block
    report(f"{what}\n\n{dataset.stats()}\n")


def run_records(dataset: ray.data.Dataset, what: str, total: int | None, report: Report) -> dict[str, Json]:
    """Execute a dataset of records: what was done, by key."""
    found: dict[str, Json] = {}
    for block in run(dataset, what, total, report):
        found |= zip(block["key"].to_pylist(), map(json.loads, block["record"].to_pylist()), strict=True)
    return found


def _resolved(value: Any) -> Any:
    return ray.get(value) if isinstance(value, ray.ObjectRef) else value

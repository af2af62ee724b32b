"""A pass over all users on Ray Data: what pipelines.models.over_users does where there is a cluster, or much to do.

    read_parquet           the splits' files, in order, as rows
    rows_that_count        one row a user
    repartition            slices of so many users
    a class of the caller  in actors that have loaded the models once: a table for each slice

Ray Data starts an actor that crashed again, as often as it takes. Tasks that read import no torch: it is imported where
the models are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from pipelines.cluster.nodes import free_nodes
from pipelines.cluster.ray_data import executed
from pipelines.cluster.session import core_lines_hidden, ray_session
from pipelines.cluster.template import OF_TRAINING
from pipelines.config.schema import Config
from pipelines.log.ids import as_array
from pipelines.models.users.worker import PassInput, Places
from pipelines.progress import progress
from pipelines.storage.home_files import located


class Shared(Mapping[str, Any]):
    """Values in Ray's object store, one copy a node: each is fetched where it is first asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.references = {name: ray.put(value) for name, value in values.items()}
        self.fetched: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared, (self.references,)

    def __getitem__(self, name: str) -> Any:
        if name not in self.fetched:
            self.fetched[name] = ray.get(self.references[name])
        return self.fetched[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.references)

    def __len__(self) -> int:
        return len(self.references)


def _shared(references: dict[str, Any]) -> Shared:
    found = Shared({})
    found.references = references
    return found


@contextmanager
def pass_on_ray(config: Config, given: PassInput) -> Iterator[PassOnRay]:
    """Have Ray inside the block, and a pass on it."""
    with ray_session(config.ray, workers=config.train.workers, home=config.home_path, preload=OF_TRAINING):
        yield PassOnRay(config, given)


class PassOnRay:
    """One pass over all users; needs a Ray session."""

    def __init__(self, config: Config, given: PassInput) -> None:
        self.slice_users, self.users = given.slice_users, given.users
        filesystem, paths = located(given.files)
        with _light_reader():
            read = ray.data.read_parquet(paths, filesystem=filesystem, include_paths=True, partitioning=None)
        numbers = {_tail(path): number for number, path in enumerate(paths)}
        rows = read.select_columns([*given.columns, "path"]).map_batches(
            partial(rows_that_count, numbers=numbers, places=ray.put(given.places)), batch_format="pyarrow"
        )
        actors = actors_of(config, -(-self.users // self.slice_users))
        self.results = rows.repartition(target_num_rows_per_block=self.slice_users, strict=True).map_batches(
            given.worker,
            batch_format="pyarrow",
            fn_constructor_args=([Path(folder) for folder in given.folders], Shared(given.shared)),
            fn_constructor_kwargs=dict(given.arguments),
            **actors,
        )
        self.results.context.execution_options.preserve_order = True

    def blocks(self, description: str) -> Iterator[pa.Table]:
        """As `UserPass.blocks`."""
        if not self.users:
            return
        left = self.users
        with core_lines_hidden(), progress(description, total=self.users) as advance:
            for block in executed(self.results):
                advance(min(left, self.slice_users))
                left -= min(left, self.slice_users)
                yield block

    def stats(self) -> str:
        """Tell what each operator of the finished pass took, in Ray Data's words."""
        return f"{self.results.stats()}\n" if self.users else ""


@contextmanager
def _light_reader() -> Iterator[None]:
    """Ray Data's first reader of Parquet: its second starts processes that list files and actors for their footers."""
    context = ray.data.DataContext.get_current()
    before, context.use_datasource_v2 = context.use_datasource_v2, False
    try:
        yield
    finally:
        context.use_datasource_v2 = before


def rows_that_count(table: pa.Table, *, numbers: dict[str, int], places: Any) -> pa.Table:
    """Keep the rows that stand in their user's place, without the column ``path``.

    Parameters
    ----------
    numbers : of the files, by the last two parts of their paths.
    places : reference to what `places_of` gave.
    """
    paths = as_array(table["path"]).dictionary_encode()
    file = np.array([numbers[_tail(path)] for path in paths.dictionary.to_pylist()], np.int32)[paths.indices.to_numpy()]
    here: Places = ray.get(places)[table["user"].to_numpy()] == file
    return table.drop_columns("path").filter(pa.array(here))


def actors_of(config: Config, slices: int) -> dict[str, Any]:
    """Say how many actors, and what each asks for: arguments of `map_batches`.

    `train.workers` of them, fewer if there are fewer slices or the cluster has fewer CPUs. One whole CPU of one node is
    left to the tasks that read, which would wait for ever otherwise: on a single node with no more CPUs than actors
    these ask for less of one, on several, where parts of CPUs would be left here and there, there is an actor less.
    """
    most = max(1, min(config.train.workers, slices))
    if config.ray.autoscaling:  # it begins with one, and CPUs come as more are asked for
        return {"concurrency": (1, most), "num_cpus": 1}
    nodes = [int(node.get("CPU", 0)) for node in free_nodes()]
    cpus, apart = max(1, sum(nodes)), sum(node > 0 for node in nodes) > 1
    actors = min(most, cpus - 1 if apart else cpus)
    return {"concurrency": (actors, actors), "num_cpus": min(1.0, (cpus - 1) / actors)}


def _tail(path: str) -> str:
    """<split>/<file> of a path, which Ray Data may have written otherwise than we."""
    return "/".join(path.split("/")[-2:])

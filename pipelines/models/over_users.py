"""Every user of some splits passed through models once, on Ray Data: evaluate, recommend --all and export.

    read_parquet           the splits' files, in order, as rows: user, items, targets, profile_<feature>
    rows_that_count        one row a user: of the first split that has them, and not superseded by --append
    repartition            slices of so many users, cut alike whatever the files and the tasks were
    a class of the caller  in actors that have loaded the models once: a table for each slice

Results come in the order of the slices whatever the number of actors, so that what is made of them does not depend on
it. Ray Data starts an actor that crashed again, as often as it takes. Tasks that read import no torch: it is imported
where the models are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import ray.data

from pipelines.cluster.nodes import free_nodes
from pipelines.cluster.ray_data import executed
from pipelines.cluster.session import core_lines_hidden
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.part_files import superseded
from pipelines.dataset.splits import SPLITS, SplitName
from pipelines.errors import UserError
from pipelines.log.ids import as_array
from pipelines.progress import progress
from pipelines.storage.home_files import located, read_in_place

if TYPE_CHECKING:
    from pipelines.models.artifact import SavedModel

SLICE_USERS = 1024
EVERYONE: tuple[SplitName, ...] = tuple(reversed(SPLITS))  # where a user's history is longest comes first
STATS = "ray-data.txt"  # of a result: what each operator took, in Ray Data's words

Places = npt.NDArray[np.int32]


class UserWorker:
    """What an actor is: one thread, the models in memory. Ray Data shows it by the name of its class.

    Parameters
    ----------
    folders : of model artifacts that every node can read.
    """

    def __init__(self, folders: Sequence[Path], **arguments: Any) -> None:
        import torch

        from pipelines.models.artifact import load_model

        torch.set_num_threads(1)
        self.mistake: UserError | None = None
        try:
            self.models: list[SavedModel] = [load_model(folder) for folder in folders]
        except UserError as error:  # raised here it would reach the driver as the text of an actor's death
            self.mistake = error
        self.arguments = arguments

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return what the rows of a slice come to. Safe to run twice, as Ray retries after a crash."""
        if self.mistake is not None:
            raise self.mistake
        return self.work(table, **self.arguments)

    def work(self, table: pa.Table, **arguments: Any) -> pa.Table:
        """Do the subclass's part of `__call__`."""
        raise NotImplementedError


class UserPass:
    """One pass over all users of some splits; needs a Ray session.

    Parameters
    ----------
    splits : a user's row is taken from the first of them that has one.
    worker : with the arguments of its `work`.
    slice_users : rows that `work` gets at a time.
    newcomers : users of no split too, of whom nothing is known but held-out events.

    Attributes
    ----------
    users : how many there are.
    """

    def __init__(
        self,
        dataset: Dataset,
        splits: Sequence[SplitName],
        config: Config,
        worker: type[UserWorker],
        folders: Sequence[Path],
        arguments: dict[str, Any],
        slice_users: int | None = None,
        newcomers: bool = False,
    ) -> None:
        self.slice_users = slice_users or SLICE_USERS
        files = [file for split in splits for file in dataset.split_files(split)]
        files += dataset.newcomer_files() if newcomers else []
        places = places_of(dataset, files)
        self.users = int((places >= 0).sum())
        filesystem, paths = located(files)
        columns = ["user", "items", "targets", *(f"profile_{each.name}" for each in dataset.manifest.profile_features)]
        with _light_reader():
            read = ray.data.read_parquet(paths, filesystem=filesystem, include_paths=True, partitioning=None)
        numbers = {_tail(path): number for number, path in enumerate(paths)}
        rows = read.select_columns([*columns, "path"]).map_batches(
            partial(rows_that_count, numbers=numbers, places=ray.put(places)), batch_format="pyarrow"
        )
        actors = actors_of(config, -(-self.users // self.slice_users))
        self.results = rows.repartition(target_num_rows_per_block=self.slice_users, strict=True).map_batches(
            worker,
            batch_format="pyarrow",
            fn_constructor_args=([Path(folder) for folder in folders],),
            fn_constructor_kwargs=arguments,
            **actors,
        )
        self.results.context.execution_options.preserve_order = True

    def blocks(self, description: str) -> Iterator[pa.Table]:
        """Yield what the worker made of each slice, in order; none without users.

        Parameters
        ----------
        description : of the progress bar, which counts users.

        Raises
        ------
        UserError
            The one that a worker raised.
        """
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


def places_of(dataset: Dataset, files: Sequence[str]) -> Places:
    """Find the number of the file whose row of the user counts, (users,) by user index; -1 without any row.

    Parameters
    ----------
    files : of one split or several; a user's row counts in the first file that has one which is not superseded.
    """
    places = np.full(dataset.user_rows(), -1, np.int32)
    for number, file in enumerate(files):
        users = as_array(read_in_place(file, ["user"])["user"]).to_numpy()
        gone = superseded(file).to_numpy() if dataset.manifest.appended else users[:0]
        users = users[~np.isin(users, gone)]
        places[users[places[users] < 0]] = number
    return places


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

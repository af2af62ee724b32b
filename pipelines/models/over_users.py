"""Every user of some splits passed through models once: evaluate, recommend --all and export.

    rows       the splits' files, in order: user, items, targets, profile_<feature>; one row a user: of the first split
               that has them, and not superseded by --append
    slices     of so many users, cut alike whatever the files and the tasks were
    a worker   a class of the caller that has loaded the models once: a table for each slice

On Ray Data (pipelines.models.users_on_ray), or in this process where nobody asked for a cluster or for several workers
and there is little to do: starting Ray and an actor would take longer. Results come in the order of the slices whoever
worked and however many, and are the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.cluster.address import cluster_address
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.part_files import superseded
from pipelines.dataset.splits import SPLITS, SplitName
from pipelines.errors import UserError
from pipelines.log.ids import as_array
from pipelines.progress import progress
from pipelines.storage.home_files import read_in_place

if TYPE_CHECKING:
    from pipelines.models.artifact import SavedModel

SLICE_USERS = 1024
HERE_PAIRS = 10**9  # users x items that are passed over in this process: about half a minute of one core
EVERYONE: tuple[SplitName, ...] = tuple(reversed(SPLITS))  # where a user's history is longest comes first
STATS = "ray-data.txt"  # of a result: what each operator took, in Ray Data's words

Places = npt.NDArray[np.int32]


class UserWorker:
    """What works on slices: one thread, the models in memory. Ray Data shows it by the name of its class.

    Parameters
    ----------
    folders : of model artifacts that every node can read.
    shared : values that all workers of a node have one copy of, as `work` finds them in `self.shared`.
    """

    def __init__(self, folders: Sequence[Path], shared: Mapping[str, Any], **arguments: Any) -> None:
        import torch

        from pipelines.models.artifact import load_model

        torch.set_num_threads(1)
        self.mistake: UserError | None = None
        try:
            self.models: list[SavedModel] = [load_model(folder) for folder in folders]
        except UserError as error:  # raised in an actor it would reach the driver as the text of the actor's death
            self.mistake = error
        self.shared, self.arguments = shared, arguments

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return what the rows of a slice come to. Safe to run twice, as Ray retries after a crash."""
        if self.mistake is not None:
            raise self.mistake
        return self.work(table, **self.arguments)

    def work(self, table: pa.Table, **arguments: Any) -> pa.Table:
        """Do the subclass's part of `__call__`."""
        raise NotImplementedError


class UserPass(Protocol):
    """One pass over all users of some splits.

    users : how many there are.
    """

    users: int

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

    def stats(self) -> str:
        """Tell what the finished pass took."""


@contextmanager
def user_pass(
    dataset: Dataset,
    splits: Sequence[SplitName],
    config: Config,
    worker: type[UserWorker],
    folders: Sequence[Path],
    arguments: Mapping[str, Any],
    shared: Mapping[str, Any] | None = None,
    slice_users: int | None = None,
    newcomers: bool = False,
) -> Iterator[UserPass]:
    """Prepare one pass over all users of some splits; Ray is there inside the block if the pass needs it.

    Parameters
    ----------
    splits : a user's row is taken from the first of them that has one.
    worker : with the arguments of its `work`.
    shared : what its workers share, see `UserWorker`.
    slice_users : rows that `work` gets at a time.
    newcomers : users of no split too, of whom nothing is known but held-out events.
    """
    files = [file for split in splits for file in dataset.split_files(split)]
    files += dataset.newcomer_files() if newcomers else []
    places = places_of(dataset, files)
    columns = ["user", "items", "targets", *(f"profile_{each.name}" for each in dataset.manifest.profile_features)]
    size = slice_users or SLICE_USERS
    if fits_here(config, int((places >= 0).sum()), dataset.manifest.items):
        yield _PassHere(files, columns, places, worker, folders, arguments, shared or {}, size)
        return
    from pipelines.models.users_on_ray import pass_on_ray  # imports Ray, which a few users do not need

    with pass_on_ray(config, files, columns, places, worker, folders, arguments, shared or {}, size) as found:
        yield found


def fits_here(config: Config, users: int, items: int) -> bool:
    """Say whether a pass is done in this process: one worker, no cluster, and little to do."""
    return config.train.workers == 1 and cluster_address(config.ray) is None and users * items <= HERE_PAIRS


class _PassHere:
    """A pass in this process, on one thread, as an actor has."""

    def __init__(
        self,
        files: Sequence[str],
        columns: Sequence[str],
        places: Places,
        worker: type[UserWorker],
        folders: Sequence[Path],
        arguments: Mapping[str, Any],
        shared: Mapping[str, Any],
        slice_users: int,
    ) -> None:
        self.users = int((places >= 0).sum())
        self._slices = slices_of(files, columns, places, slice_users)
        self._worker = lambda: worker([Path(folder) for folder in folders], shared, **arguments)
        self._seconds = 0.0

    def blocks(self, description: str) -> Iterator[pa.Table]:
        if not self.users:
            return
        import torch

        threads, started = torch.get_num_threads(), time.perf_counter()
        with progress(description, total=self.users) as advance:
            try:
                worker = self._worker()
                for rows in self._slices:
                    yield worker(rows)
                    advance(len(rows))
            finally:
                torch.set_num_threads(threads)
        self._seconds = time.perf_counter() - started

    def stats(self) -> str:
        return f"{self.users:,} users in this process, in {self._seconds:.2f} s\n"


def slices_of(files: Sequence[str], columns: Sequence[str], places: Places, size: int) -> Iterator[pa.Table]:
    """Read the rows that count, file by file, and cut them into tables of `size` rows; the last may have fewer."""
    waiting: list[pa.Table] = []
    for number, file in enumerate(files):
        table = read_in_place(file, list(columns))
        waiting.append(table.filter(pa.array(places[as_array(table["user"]).to_numpy()] == number)))
        while sum(map(len, waiting)) >= size:
            table = pa.concat_tables(waiting)
            yield table.slice(0, size).combine_chunks()
            waiting = [table.slice(size)]
    if rest := sum(map(len, waiting)):
        yield pa.concat_tables(waiting).slice(0, rest).combine_chunks()


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

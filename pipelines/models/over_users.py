"""Every user of some splits passed through models once: evaluate, recommend --all and export.

    rows       the splits' files, in order: user, items, targets, profile_<feature>; one row a user: of the first split
               that has them, and not superseded by --append
    slices     of so many users, cut alike whatever the files and the tasks were
    a worker   a class of the caller that has loaded the models once: a table for each slice

On Ray Data (pipelines.models.users.on_ray), or in this process where nobody asked for a cluster and there is little to
do: starting Ray and its actors would take longer. Results come in the order of the slices whoever
worked and however many, and are the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cluster.address import cluster_address, cores
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.part_files import superseded
from pipelines.dataset.splits import SPLITS, SplitName
from pipelines.log.ids import as_array
from pipelines.models.users.here import PassHere
from pipelines.models.users.worker import PassInput, Places, UserPass, UserWorker
from pipelines.storage.home_files import read_in_place

SLICE_USERS = 1024
HERE_PAIRS = 10**9  # users x items that are passed over in this process: about half a minute of one core
EVERYONE: tuple[SplitName, ...] = tuple(reversed(SPLITS))  # where a user's history is longest comes first
STATS = "ray-data.txt"  # of a result: what each operator took, in Ray Data's words


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
    given = PassInput(files, columns, places, worker, folders, arguments, shared or {}, size)
    if fits_here(config, given.users, dataset.manifest.items):
        yield PassHere(given, threads=cores())
        return
    from pipelines.models.users.on_ray import pass_on_ray  # imports Ray, which a few users do not need

    with pass_on_ray(config, given) as found:
        yield found


def fits_here(config: Config, users: int, items: int) -> bool:
    """Say whether a pass is done in this process: nobody asked for a cluster, and there is little to do."""
    return cluster_address(config.ray) is None and users * items <= HERE_PAIRS


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

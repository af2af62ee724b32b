"""A split's users in slices, worked through in order by actors that have loaded the models once.

A slice is a range of rows of one Parquet part. Results come in slice order whatever the number of actors, so that what
is made of them does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from ray.util import ActorPool

from mind_core.sequences import Sequences
from pipelines.cluster.nodes import free_resources
from pipelines.cluster.session import raise_user_error
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.part_files import read_part
from pipelines.dataset.splits import SplitName
from pipelines.dataset.tensors import feature_specs, to_sequences, with_held_out
from pipelines.models.artifact import ModelCard, load_model
from pipelines.progress import progress
from pipelines.storage.home_files import fetch

SLICE_USERS = 1024
BEHAVIOURS = ("times", "weights", "sessions", "gaps")  # columns of a sequence that no model reads
CRASHES = 3  # of an actor, survived by starting it again


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `start + rows` of a Parquet part; only those `kept` (counted from start), if given."""

    file: str
    start: int
    rows: int
    kept: npt.NDArray[np.int64] | None = None

    @property
    def users(self) -> int:
        """How many users it holds."""
        return self.rows if self.kept is None else len(self.kept)

    def read(self) -> pa.Table:
        """Its rows: user, items, targets, profile_<feature>."""
        table = _part(self.file).slice(self.start, self.rows)
        return table if self.kept is None else table.take(pa.array(self.kept))


@lru_cache(maxsize=1)  # consecutive slices are of one part
def _part(file: str) -> pa.Table:
    names = [name for name in pq.read_schema(fetch(file)).names if name not in BEHAVIOURS]
    return read_part(file, names).combine_chunks()


def slices_of(dataset: Dataset, split: SplitName, known: npt.NDArray[np.bool_] | None = None) -> list[Slice]:
    """The slices of a split, in user order; `known` as for `cut`."""
    return [part for part, _ in cut(dataset, split, SLICE_USERS, known)]


def cut(
    dataset: Dataset, split: SplitName, size: int, known: npt.NDArray[np.bool_] | None = None
) -> Iterator[tuple[Slice, npt.NDArray[np.int64]]]:
    """The slices of a split, of `size` rows at most and in user order, each with the index of its users.

    Parameters
    ----------
    known : (users,) bool by user index, or None. Users marked in it are left out; those found here are marked.
    """
    for file in dataset.split_files(split):
        users = read_part(file, ["user"])["user"].to_numpy()
        for start in range(0, len(users), size):
            here = users[start : start + size]
            kept = None
            if known is not None:
                new = np.flatnonzero(~known[here])
                known[here] = True
                kept = None if len(new) == len(here) else new
            if kept is None or len(kept):
                yield Slice(file, start, len(here), kept), here if kept is None else here[kept]


def sequences_of(table: pa.Table, card: ModelCard, latest: bool) -> Sequences:
    """The rows of a split as a model reads them; `latest`: with the held-out items at the end of the histories."""
    return to_sequences(with_held_out(table) if latest else table, feature_specs(card.profile_features))


class _Worker:
    """An actor: one thread, the models in memory."""

    def __init__(self, models: Sequence[Path]) -> None:
        torch.set_num_threads(1)
        self.models = [load_model(path) for path in models]

    def run(self, task: Callable[..., Any], part: Slice, *arguments: Any) -> Any:
        return task(self.models, part.read(), *arguments)


def over_slices(
    task: Callable[..., Any],
    models: Sequence[Path],
    slices: Sequence[Slice],
    arguments: tuple[Any, ...],
    config: Config,
    description: str,
) -> Iterator[Any]:
    """Yield ``task(models, table, *arguments)`` of each slice, in order. Needs a Ray session.

    Parameters
    ----------
    task : a function of a module; it gets the loaded models and the slice's rows. Safe to run twice.
    models : folders of artifacts that every node can read.
    config : `train.workers` actors are started, fewer if the cluster has fewer CPUs.
    description : of the progress bar, which counts users.

    Raises
    ------
    UserError
        The one that a task raised.
    """
    cpus = config.train.workers if config.ray.autoscaling else int(free_resources()["CPU"])
    workers = max(1, min(config.train.workers, cpus, len(slices)))
    actor = ray.remote(num_cpus=1, max_restarts=CRASHES, max_task_retries=CRASHES)(_Worker)
    pool = ActorPool([actor.remote([Path(model) for model in models]) for _ in range(workers)])
    results = pool.map(lambda worker, part: worker.run.remote(task, part, *arguments), list(slices))
    with progress(description, total=sum(part.users for part in slices)) as advance:
        try:
            for part, result in zip(slices, results, strict=True):
                advance(part.users)
                yield result
        except Exception as error:
            raise_user_error(error)
            raise

"""What works on slices of users, wherever it runs, and what a pass looks like to its caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.models.artifact import SavedModel

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


@dataclass(frozen=True)
class PassInput:
    """What a pass goes over and with what, wherever it runs.

    files, columns : of the splits, in order, and what is read of them.
    places : by user index, the number of the file whose row counts; -1 without any.
    worker, folders, arguments, shared : see `UserWorker`; arguments are those of its `work`.
    slice_users : rows that it gets at a time.
    """

    files: Sequence[str]
    columns: Sequence[str]
    places: Places
    worker: type[UserWorker]
    folders: Sequence[Path]
    arguments: Mapping[str, Any]
    shared: Mapping[str, Any]
    slice_users: int

    @property
    def users(self) -> int:
        """Count the users of whom a row counts."""
        return int((self.places >= 0).sum())


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

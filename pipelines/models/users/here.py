"""A pass over users in this process: where starting Ray and its actors would take longer than the pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipelines.log.ids import as_array
from pipelines.models.users.worker import PassInput, Places, UserWorker
from pipelines.progress import progress
from pipelines.storage.home_files import read_in_place


class PassHere:
    """One pass over all users, on as many threads as there would be actors of one; the bits are the same."""

    def __init__(self, given: PassInput, threads: int) -> None:
        self.users = given.users
        self._slices = slices_of(given.files, given.columns, given.places, given.slice_users)
        self._worker: Callable[[], UserWorker] = partial(
            given.worker, [Path(each) for each in given.folders], given.shared, **given.arguments
        )
        self._threads, self._seconds = threads, 0.0

    def blocks(self, description: str) -> Iterator[pa.Table]:
        """As `UserPass.blocks`."""
        if not self.users:
            return
        import torch

        threads, started = torch.get_num_threads(), time.perf_counter()
        with progress(description, total=self.users) as advance:
            try:
                worker = self._worker()
                torch.set_num_threads(self._threads)
                for rows in self._slices:
                    yield worker(rows)
                    advance(len(rows))
            finally:
                torch.set_num_threads(threads)
        self._seconds = time.perf_counter() - started

    def stats(self) -> str:
        """Tell how long the finished pass took."""
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

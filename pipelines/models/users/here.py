"""A pass over users in this process: where starting Ray and its actors would take longer than the pass."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipelines.log.ids import as_array
from pipelines.models.users.worker import PassInput, Places, UserWorker
from pipelines.progress import progress
from pipelines.storage.home_files import read_in_place
from pipelines.words import counted


class PassHere:
    """One pass over all users, by threads that take a slice each, as actors would; the bits are the same.

    threads : that work at a time. Threads within an operation, on as small tensors as these, would mostly wait for
    each other.
    """

    def __init__(self, given: PassInput, threads: int) -> None:
        self.users = given.users
        self._slices = slices_of(given.files, given.columns, given.places, given.slice_users)
        self._worker: Callable[[], UserWorker] = partial(
            given.worker, [Path(each) for each in given.folders], given.shared, **given.arguments
        )
        self._threads = max(1, min(threads, -(-self.users // given.slice_users)))
        self._seconds = 0.0

    def blocks(self, description: str) -> Iterator[pa.Table]:
        """As `UserPass.blocks`."""
        if not self.users:
            return
        import torch

        threads, started = torch.get_num_threads(), time.perf_counter()
        with progress(description, total=self.users) as advance:
            try:
                for rows, block in self._worked():
                    yield block
                    advance(rows)
            finally:
                torch.set_num_threads(threads)  # a worker has one, and so would threads that begin after it
        self._seconds = time.perf_counter() - started

    def _worked(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield the rows of each slice and what became of it, in order; a slice a thread is held, and one more."""
        own = threading.local()

        def work(rows: pa.Table) -> pa.Table:
            if not hasattr(own, "worker"):
                own.worker = self._worker()
            return own.worker(rows)

        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="users")
        begun: deque[tuple[int, Future[pa.Table]]] = deque()
        try:
            for rows in self._slices:
                begun.append((len(rows), pool.submit(work, rows)))
                if len(begun) > self._threads:
                    count, block = begun.popleft()
                    yield count, block.result()
            for count, block in begun:
                yield count, block.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def stats(self) -> str:
        """Tell how long the finished pass took."""
        return f"{counted(self.users, 'user')} in this process, in {self._seconds:.2f} s\n"


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

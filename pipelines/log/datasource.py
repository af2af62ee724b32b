"""The event log as a source of Ray Data: one row for each block of a file, its bytes as they were read.

Ray's own readers want one schema for all files and drop what they cannot parse. A log's files may disagree on a type, a
line may be torn, sessions stand one to a line; and each row must be kept or put aside with its reason. So a block
travels as it is, as Arrow IPC, with its place and with the lines in it that are no rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.context import DataContext

from pipelines.config.schema import TableSource
from pipelines.log.formats import Block, Fragment, read_blocks

BYTES = pa.large_binary()


class LogDatasource(Datasource):
    """Pieces of a log, each read by one task.

    Rows: piece (its number), block (from 0 within the piece), last (whether it is the piece's last), table (Arrow IPC),
    unreadable (list of lines), notes (JSON).
    """

    def __init__(self, pieces: Mapping[int, Fragment], source: TableSource, columns: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pieces, self.source, self.columns = pieces, source, columns

    def get_name(self) -> str:
        """Give the name that the operator carries: ReadLog."""
        return "Log"

    def estimate_inmemory_data_size(self) -> int:
        """Give the bytes of the files' pieces, as they lie on disk."""
        return sum(piece.size_bytes for piece in self.pieces.values())

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """Make one for each piece, whatever `parallelism` asks for."""
        return [self._task(number, piece) for number, piece in self.pieces.items()]

    def _task(self, number: int, piece: Fragment) -> ReadTask:
        read: Callable[[], Iterator[pa.Table]] = partial(_rows, number, piece, self.source, self.columns)
        metadata = BlockMetadata(
            num_rows=None, size_bytes=piece.size_bytes, input_files=(piece.shown,), exec_stats=None
        )
        return ReadTask(read, metadata)


def _rows(number: int, piece: Fragment, source: TableSource, columns: list[str]) -> Iterator[pa.Table]:
    """Yield a row for each block that holds anything; the last one is known as such, so that a torn read shows."""
    count, held = 0, None
    for block in read_blocks(piece, source, columns):
        if block.table.num_rows or block.unreadable:
            if held is not None:
                yield _row(number, count, False, held)
                count += 1
            held = block
    if held is not None:
        yield _row(number, count, True, held)


def _row(number: int, place: int, last: bool, block: Block) -> pa.Table:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.table.schema) as writer:
        writer.write_table(block.table)
    data = sink.getvalue()
    offsets = pa.py_buffer(np.array([0, data.size], np.int64))
    return pa.table(
        {
            "piece": pa.array([number], pa.int64()),
            "block": pa.array([place], pa.int64()),
            "last": [last],
            "table": pa.Array.from_buffers(BYTES, 1, [None, offsets, data]),
            "unreadable": pa.array([list(block.unreadable)], pa.list_(pa.string())),
            "notes": [json.dumps(block.notes)],
        }
    )


def blocks_of(rows: pa.Table) -> Iterator[tuple[int, int, bool, Block]]:
    """Yield piece, block, last and the block itself of each row."""
    for batch in rows.to_batches():
        for place in range(batch.num_rows):
            piece, block, last, table, unreadable, notes = (batch[name][place] for name in batch.schema.names)
            raw = pa.ipc.open_stream(table.as_buffer()).read_all()
            yield (
                piece.as_py(),
                block.as_py(),
                last.as_py(),
                Block(raw, tuple(unreadable.as_py()), tuple(map(tuple, json.loads(notes.as_py())))),
            )

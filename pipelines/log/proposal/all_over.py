"""Rows from places all over a log that is too long to be looked at whole: where its times begin and end. No Ray.

The places lie evenly over the bytes of all files, so that the rows at them have the log's own times in the log's own
shares, whatever the rows are sorted by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.config.schema import NULL_WORDS, EventSource
from pipelines.errors import UserError
from pipelines.log.formats import Fragment, read_blocks, reading
from pipelines.log.ids import as_array
from pipelines.log.json_rows import is_over_lines
from pipelines.log.null_words import without_nulls
from pipelines.log.proposal.first_look import Look
from pipelines.log.sources import fragments
from pipelines.log.text_files import is_compressed, open_bytes

Shares = npt.NDArray[np.float64]  # (places,) of a file's bytes: 0 = its begin, 1 = its end

PLACES = 64
ROWS = 2**14  # at a place, of Parquet
BYTES = 2**18  # at a place, of text
STRIDE = 2**20  # bytes from one place to the next in a stream, at first
MOST_COMPRESSED = 2**28  # bytes of compressed files, which are read from end to end


def rows_all_over(log: Look, user: str, item: str, time: str) -> pa.Table | None:
    """Read users and times at places all over a log.

    Returns the columns `user` and `time`, null where nothing is; None where a look would cost too much, or cannot
    begin between two rows: large compressed files, UTF-16, JSON over several lines.
    """
    names = {"path": log.path, **log.settings, "user": user, "item": item, "time": time}
    source = EventSource.model_validate(names)
    wanted = [user, time, *([item] if item in log.unrolled else [])]
    try:
        files = {piece.number: piece for piece in fragments(source, [])}
        shares = _shares([piece.size_bytes for piece in files.values()])
        chosen = [(file, of_it) for file, of_it in zip(files.values(), shares, strict=True) if len(of_it)]
        tables = []
        with TemporaryDirectory() as folder:
            for piece in _pieces(chosen, source, Path(folder)):
                tables += [block.select([user, time]) for block in _rows_of(*piece, source, wanted)]
        return _joined(tables, user, time)
    except (UserError, _CannotBegin):
        return None


class _CannotBegin(Exception):
    """A text cannot be read from the middle."""


def _shares(sizes: Sequence[int]) -> list[Shares]:
    """Return for each file where in it the places lie."""
    ends = np.cumsum(sizes)
    places = (np.arange(PLACES) + 0.5) / PLACES * ends[-1]
    file = np.searchsorted(ends, places, side="right")
    return [(places[file == n] - (ends[n] - size)) / size for n, size in enumerate(sizes)]


def _pieces(
    chosen: Sequence[tuple[Fragment, Shares]], source: EventSource, folder: Path
) -> Iterator[tuple[Fragment, Shares]]:
    """Yield what is to be read: of Parquet the file itself, of text a small one of the lines at its places."""
    packed = {file.number for file, _ in chosen if file.format != "parquet" and _is_compressed(file)}
    if sum(file.size_bytes for file, _ in chosen if file.number in packed) > MOST_COMPRESSED:
        raise _CannotBegin
    for file, shares in chosen:
        if file.format == "parquet":
            yield file, shares
            continue
        found = _of_a_stream(file, len(shares)) if file.number in packed else _of_a_file(file, shares)
        head, parts = next(found), [part for part in found if part]
        if file.format == "sessions" or source.encoding.lower().startswith("utf-16") or is_over_lines(head):
            raise _CannotBegin
        has_header = file.format == "recbole" or (file.format == "csv" and source.columns is None)
        lines = [head.partition(b"\n")[0] if has_header else b"", *(part.removesuffix(b"\n") for part in parts)]
        data = b"\n".join(filter(None, lines)) + b"\n"
        path = folder / f"{file.number}"
        path.write_bytes(data)
        yield replace(file, filesystem=pafs.LocalFileSystem(), path=str(path), size_bytes=len(data)), np.zeros(0)


def _is_compressed(file: Fragment) -> bool:
    with reading(file.shown, file.format):
        return is_compressed(file.filesystem, file.path)


def _of_a_file(file: Fragment, shares: Shares) -> Iterator[bytes]:
    """Yield the first bytes, then whole lines at each place."""
    with reading(file.shown, file.format), file.filesystem.open_input_file(file.path) as raw:
        yield raw.read(BYTES)
        for share in shares:
            raw.seek(int(share * file.size_bytes))
            yield _whole_lines(raw.read(BYTES))


def _of_a_stream(file: Fragment, places: int) -> Iterator[bytes]:
    """Yield the same of a file that is read from its begin to an end that nobody knows: the places grow apart."""
    kept: list[bytes] = []
    stride, count = STRIDE, 0
    with reading(file.shown, file.format), open_bytes(file.filesystem, file.path, file.shown) as raw:
        head = part = raw.read(STRIDE)
        while part:
            if count % (stride // STRIDE) == 0:
                kept.append(_whole_lines(part[:BYTES]))
            count += 1
            if len(kept) > 4 * places:
                kept, stride = kept[::2], 2 * stride
            part = raw.read(STRIDE)
    yield head[:BYTES]
    yield from (kept[int(place)] for place in np.unique(np.linspace(0, len(kept) - 1, places).round()))


def _whole_lines(data: bytes) -> bytes:
    """Leave out the line in whose middle the bytes begin, and the one that they do not end."""
    return data.partition(b"\n")[2].rpartition(b"\n")[0]


def _rows_of(piece: Fragment, shares: Shares, source: EventSource, columns: list[str]) -> Iterator[pa.Table]:
    if piece.format != "parquet":
        yield from (block.table for block in read_blocks(piece, source, columns))
        return
    with reading(piece.shown, "parquet"), piece.filesystem.open_input_file(piece.path) as raw:
        metadata = pq.ParquetFile(raw).metadata
        ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
    rows = (shares * ends[-1]).astype(np.int64)
    for group in np.unique(np.searchsorted(ends, rows, side="right")):
        begin = ends[group - 1] if group else 0
        offsets = [int(row - begin) for row in rows if begin <= row < ends[group]]
        yield from _at(replace(piece, row_groups=(int(group),)), offsets, source, columns)


def _at(group: Fragment, offsets: list[int], source: EventSource, columns: list[str]) -> Iterator[pa.Table]:
    """Yield some rows from each of these on; what lies behind the last is not read."""
    seen = 0
    for block in read_blocks(group, source, columns):
        stop = seen + block.table.num_rows
        yield from (block.table.slice(offset - seen, ROWS) for offset in offsets if seen <= offset < stop)
        seen = stop
        if seen > offsets[-1]:
            return


def _joined(tables: Sequence[pa.Table], user: str, time: str) -> pa.Table | None:
    columns = {}
    for role, name in (("user", user), ("time", time)):
        arrays = [without_nulls(as_array(table[name]), NULL_WORDS) for table in tables if table.num_rows]
        kinds = {array.type for array in arrays if not pa.types.is_null(array.type)}
        if len(kinds) > 1 and role == "time":
            return None
        kind = next(iter(kinds)) if len(kinds) == 1 else pa.string()
        columns[role] = pa.chunked_array([array.cast(kind) for array in arrays], kind)
    return pa.table(columns) if len(columns["time"]) else None

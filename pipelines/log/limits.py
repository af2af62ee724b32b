"""What a file of a log may do to the memory of its reader: how long a line, how deep a value, how far it expands."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa

EXPANSION = 200  # times its bytes that a compressed file may hold, unless max_expansion says otherwise
FREE_BYTES = 64 * 2**20  # of what is expanded: less than that harms nobody
MAX_DEPTH = 100  # of a JSON value; Arrow's parser dies of some 10,000
SHOWN_BYTES = 200  # of a line that is too long


class Bounded(io.RawIOBase):
    """A byte stream that ends with an error once it has given more than so many bytes."""

    def __init__(self, raw: Any, most: int, what: str) -> None:
        super().__init__()
        self._raw, self._most, self._what, self._given = raw, most, what, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._raw.read(size)
        self._given += len(data)
        if self._given > self._most:
            raise OSError(self._what)
        return data


def within_expansion(raw: Any, size: int, most: int) -> Any:
    """Bound what a compressed file of `size` bytes may expand to, at most `most` times that."""
    what = f"it expands to more than {most} times its {size:,} bytes; if that is right, set max_expansion: higher"
    return pa.PythonFile(Bounded(raw, max(FREE_BYTES, most * size), what), mode="r")


def is_too_deep(line: bytes) -> bool:
    """Say whether a line of JSON is nested deeper than MAX_DEPTH; brackets within texts count as well if in doubt.

    >>> is_too_deep(b"[" * 101 + b"]" * 101), is_too_deep(b"[" + b"[1]," * 300 + b"1]")
    (True, False)
    """
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return False
    bytes_ = np.frombuffer(line, np.uint8)
    opens, closes = np.isin(bytes_, [0x5B, 0x7B]), np.isin(bytes_, [0x5D, 0x7D])
    return bool((opens.astype(np.int32) - closes).cumsum().max() > MAX_DEPTH)


def suspects(lines: bytes, longest: int) -> bool:
    """Say whether any line could be longer than `longest` bytes or too deep, by a look at line ends and brackets."""
    bytes_ = np.frombuffer(lines, np.uint8)
    starts = np.concatenate([[0], np.flatnonzero(bytes_ == 0x0A) + 1])
    if np.diff(np.append(starts, len(bytes_) + 1)).max() > longest + 1:
        return True
    opens = np.flatnonzero((bytes_ == 0x5B) | (bytes_ == 0x7B))
    return bool(np.diff(np.append(np.searchsorted(opens, starts), len(opens))).max() > MAX_DEPTH)


def shortened(line: bytes, longest: int) -> str:
    """Show a line, or the beginning of one that is too long to be kept whole."""
    if len(line) <= longest:
        return line.decode(errors="replace")
    return f"{line[:SHOWN_BYTES].decode(errors='replace')} ... (more than {longest:,} bytes)"

"""A short text for many values: to name what they shape, and to see that they are still the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def key_digest(key: Any, size: int) -> str:
    """Return hex digits, two for each of `size` bytes, of a key that can be JSON, whatever the order of its members."""
    return hashlib.blake2b(json.dumps(key, sort_keys=True, default=str).encode(), digest_size=size).hexdigest()


def joint_digest(parts: Iterable[object]) -> str:
    """Return the SHA-256 of many texts, one a line: of digests that together stand for a dataset."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def table_digest(table: pa.Table) -> str:
    """Return the SHA-256 of a table's names, types and values, independent of chunks and of the file format."""
    state = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        state.update(f"{name}:{column.type}:{len(column)};".encode())
        array = column.combine_chunks()
        for chunk in array.chunks if isinstance(array, pa.ChunkedArray) else [array]:
            _add(state, chunk)
    return state.hexdigest()


def _add(state: Any, array: pa.Array) -> None:
    state.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        state.update(array.value_lengths().fill_null(-1).to_numpy().tobytes())
        _add(state, array.flatten())
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            _add(state, child)
    elif pa.types.is_primitive(kind) and not pa.types.is_boolean(kind):
        dense = array.drop_null()
        width = kind.bit_width // 8
        start = dense.offset * width
        buffer = dense.buffers()[1]
        state.update(memoryview(buffer)[start : start + len(dense) * width] if buffer is not None else b"")
    else:
        text = array.cast(pa.string()).drop_null() if not pa.types.is_binary(kind) else array.drop_null()
        state.update(pc.binary_length(text).to_numpy(zero_copy_only=False).tobytes())
        state.update(b"".join(text.cast(pa.binary()).to_pylist()))

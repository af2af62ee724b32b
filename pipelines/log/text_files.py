"""The bytes of a text file as UTF-8: decompressed by what it holds, whatever its name says. No Ray."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from pipelines.errors import UserError
from pipelines.log.limits import EXPANSION, within_expansion

Read = Callable[[int], bytes]  # read(n): about n bytes, none at the end

_CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
_NO_TEXT = {
    b"PAR1": "is a Parquet file; set format: parquet",
    b"PK\x03\x04": "is a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"\xfd7zXZ": "is compressed with xz; unpack it, or compress it with gzip, zstd or bzip2",
    b"ARROW1": "is an Arrow file; write it as Parquet",
    b"ORC": "is an ORC file; write it as Parquet",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook; save the sheet as CSV",
    b"\x80\x04": "is a Python pickle; write it as Parquet",
}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LONGEST = max(map(len, (*_CODECS, *_NO_TEXT)))


def is_compressed(filesystem: Any, path: str) -> bool:
    """Say whether a file begins as gzip, zstd, bzip2 or lz4 does."""
    with filesystem.open_input_file(path) as raw:
        return _codec(raw.read(_LONGEST)) is not None


def _codec(head: bytes) -> str | None:
    return next((codec for magic, codec in _CODECS.items() if head.startswith(magic)), None)


@contextmanager
def open_bytes(filesystem: Any, path: str, shown: str, expansion: int = EXPANSION) -> Iterator[BinaryIO]:
    """Open a text file's bytes, decompressed if they begin as gzip, zstd, bzip2 or lz4 does.

    expansion : how many times its bytes a compressed file may hold.

    Raises
    ------
    UserError
        If they begin as a file of another kind does; the text says of which.
    OSError
        While they are read, if they are more than may be held.
    """
    with filesystem.open_input_file(path) as raw:
        head = raw.read(_LONGEST)
    for magic, problem in _NO_TEXT.items():
        if head.startswith(magic):
            raise UserError(f"{shown}: {problem}")
    codec = _codec(head)
    with filesystem.open_input_stream(path, compression=codec) as raw:
        yield raw if codec is None else within_expansion(raw, int(filesystem.get_file_info(path).size), expansion)


@contextmanager
def open_text(filesystem: Any, path: str, shown: str, encoding: str, expansion: int = EXPANSION) -> Iterator[Read]:
    """Open a text file as UTF-8 without a byte order mark; characters are never cut.

    Raises
    ------
    UnicodeError
        If it is not in this encoding. UTF-8 is not looked at here.
    """
    with open_bytes(filesystem, path, shown, expansion) as raw:
        yield _as_utf8(raw.read, encoding, shown)


def _as_utf8(read: Read, encoding: str, shown: str) -> Read:
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
    decoder = None if is_utf8 else codecs.getincrementaldecoder(encoding)()
    at_start = True

    def read_on(size: int) -> bytes:
        nonlocal at_start
        data = read(size)
        if at_start and is_utf8 and data.startswith(_UTF_16):
            raise UserError(f"{shown}: begins as text in UTF-16 does; set encoding: utf-16")
        if decoder is not None:
            text = decoder.decode(data, final=not data)
            while data and not text:  # the bytes of half a character
                data = read(size)
                text = decoder.decode(data, final=not data)
            data = text.encode()
        if at_start:
            data = data.removeprefix(codecs.BOM_UTF8)
        at_start = False
        return data

    return read_on

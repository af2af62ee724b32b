"""Numbers as people write and read them: 1e9, 1_000_000, 10M; 25.6 GB, 3.2 h."""

from __future__ import annotations

import re

from pipelines.errors import UserError

NUMBER = re.compile(r"^([0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)([kKMGBT]?)$")
SUFFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
BYTES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
TIMES = ((86_400 * 365.25, "years"), (86_400.0, "days"), (3_600.0, "h"), (60.0, "min"))
COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def parse_number(text: str, what: str) -> float:
    """Parse a number above 0; suffixes k, M, G or B, and T are powers of 1,000.

    Raises
    ------
    UserError
        Naming `what`.
    """
    found = NUMBER.match(text.strip())
    value = float(found[1].replace("_", "")) * SUFFIXES[found[2]] if found else 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"{what} {text!r} must be a number above 0, for example 1e9, 1_000_000 or 10M")
    return value


def parse_whole(text: str, what: str) -> int:
    """Parse a whole number above 0, written as `parse_number` takes it.

    Raises
    ------
    UserError
        Naming `what`.
    """
    value = parse_number(text, what)
    if value != int(value):
        raise UserError(f"{what} {text!r} must be a whole number")
    return int(value)


def show_bytes(value: float) -> str:
    """Write bytes as ``25.6 GB``; powers of 1,000."""
    return _scaled(value, BYTES, "B")


def show_seconds(value: float) -> str:
    """Write seconds as ``3.2 h``."""
    return _scaled(value, TIMES, "s")


def show_count(value: float) -> str:
    """Write a count as ``1.5 M``, ``300``."""
    return _scaled(value, COUNTS, "")


def _scaled(value: float, units: tuple[tuple[float, str], ...], unit: str) -> str:
    size, name = next(((size, name) for size, name in units if value >= size), (1.0, unit))
    scaled = value / size
    if scaled >= 1e5:
        return f"{scaled:.1e} {name}".rstrip()
    digits = 0 if scaled >= 100 or (scaled == round(scaled) and size == 1) else 1 if scaled >= 10 else 2
    return f"{scaled:,.{digits}f} {name}".rstrip()

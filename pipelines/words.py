"""Numbers in sentences: one user, two users."""

from __future__ import annotations


def counted(count: float, one: str, many: str | None = None) -> str:
    """Write how many there are of a thing.

    many : the plural, and its verb if `one` has one; None: `one` with an s.

    >>> counted(1, "epoch"), counted(1200, "user"), counted(2, "row is", "rows are")
    ('1 epoch', '1,200 users', '2 rows are')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"

"""What a request may ask for: the bounds that keep its cost what it is, and the error of one that it breaks."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Bounds of one request.

    body : bytes.  n : items of a list.  history : behaviours; the model sees its newest `max_history` of them, all
    count as seen.  items : ids of `exclude`, and of `only`.  values : of a profile feature that is a list.
    where : letters of a filter.
    """

    body: int = 2**20
    n: int = 1_000
    history: int = 10_000
    items: int = 10_000
    values: int = 1_000
    where: int = 1_000


LIMITS = Limits()
DEFAULT_N = 20


class RequestError(UserError):
    """A mistake in a request, in one line.

    status : of HTTP; 400 for what is no JSON, 413 for what is too large, 422 for what cannot be answered.
    """

    def __init__(self, line: str, status: int = 422) -> None:
        super().__init__(line)
        self.status = status

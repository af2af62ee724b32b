"""How Python calls a stage: a mistake is one line, and results are returned instead of printed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.errors import UserError, machine_error, user_error
from pipelines.progress import output


@contextmanager
def stage() -> Iterator[None]:
    """Run a stage without its tables; progress and remarks stay.

    Raises
    ------
    UserError
        In one line: what a user or the machine is to mend, from a Ray worker too.
    """
    before, output.quiet = output.quiet, True
    try:
        yield
    except Exception as error:
        mistake = user_error(error) or machine_error(error)
        if mistake is None:
            raise
        raise UserError(" ".join(str(mistake).split())) from None
    finally:
        output.quiet = before

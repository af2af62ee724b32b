"""The one exception that is a message to the user: printed as a single line, exit code 2, no traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user's (file, column, key, value) with the way out in its text."""


CALMER = "lower optim.learning_rate or optim.table_learning_rate, or set optim.warmup_steps"  # of a diverging training


class DivergedError(UserError):
    """A training whose loss or weights are no longer finite: nothing can be learned from there on."""


def user_error(error: BaseException | None) -> UserError | None:
    """Find the UserError that `error` is or, raised in a Ray worker, carries as its cause."""
    while error is not None:
        # Ray's own wrapper is an instance of UserError as well, but its text is the whole remote traceback.
        inner = getattr(error, "cause", None)
        if isinstance(error, UserError) and not isinstance(inner, BaseException):
            return error
        error = inner or error.__cause__
    return None

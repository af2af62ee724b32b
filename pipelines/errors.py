"""The one exception that is a message to the user: printed as a single line, exit code 2, no traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user's (file, column, key, value) with the way out in its text."""

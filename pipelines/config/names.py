"""Names that become paths: which are taken, where each lies in the home, and how any text becomes a file name.

Whatever names a folder of the home (a dataset, a run, a model, a campaign, ...) passes `home_place`, and whatever names
a file after a word of the user's own (a column of a table, a URI) passes `file_name`; no other code makes such paths.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from pipelines.errors import UserError

ALLOWED = "letters, digits, '.', '_' and '-', beginning with a letter, a digit or '_'"
MAX_NAME = 100  # characters; a run's name, a folder beside it and a lock each add to it, and 255 bytes is the end
MAX_PLACE = 160  # with all that the stages append: preset, hash, number, split
MAX_FILE_NAME = 200
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_ESCAPED = re.compile(r"[^A-Za-z0-9._-]|^\.")

Kind = Literal["datasets", "runs", "models", "evaluations", "reports", "exports", "campaigns", "frames"]


def is_name(text: str, longest: int = MAX_PLACE) -> bool:
    """Say whether `text` may name a folder: it stays in the folder that it is put into, and hides nothing there.

    >>> is_name("ml-1m"), is_name(".."), is_name("a/b"), is_name(".hidden"), is_name("")
    (True, False, False, False, False)
    """
    return len(text) <= longest and _NAME.fullmatch(text) is not None


def required_name(text: str, where: str) -> str:
    """Return what is going to be the `name:` of a configuration.

    Raises
    ------
    UserError
        If it is no name; the text begins with `where` it was given.
    """
    if not is_name(text, MAX_NAME):
        raise UserError(f"{where} {text!r}: must be at most {MAX_NAME} {ALLOWED}")
    return text


def is_feature_name(text: str) -> bool:
    """Say whether a column of that name may be a feature."""
    return bool(text) and text.isprintable()


def _checked_name(text: str) -> str:
    if not is_name(text, MAX_NAME):
        raise PydanticCustomError("unsafe_name", f"must be at most {MAX_NAME} {ALLOWED}")
    return text


def _checked_feature(text: str) -> str:
    if not is_feature_name(text):
        raise PydanticCustomError("unsafe_name", "must be a column's name, without control characters")
    return text


Name = Annotated[str, AfterValidator(_checked_name)]
"""What a user calls a dataset or a campaign: it becomes a folder."""

FeatureName = Annotated[str, AfterValidator(_checked_feature)]
"""A column's name, almost any text: `file_name` makes a file of it."""


def home_place(home: Path, kind: Kind, name: str) -> Path:
    """Return the folder (or file) of the home that belongs to `name`.

    Raises
    ------
    UserError
        If the name could lead elsewhere, as one that a downloaded model brings may.
    """
    if not is_name(name):
        raise UserError(f"{name!r}: cannot name anything in {kind}: must be {ALLOWED}")
    return home / kind / name


def file_name(text: str) -> str:
    """Make a name for a file that is only this text's, in ASCII, without a separator and not hidden.

    Letters, digits, '.', '_' and '-' stay; any other character, and a leading dot, becomes ``~XX`` for each byte of its
    UTF-8. '~' it is since MLflow decodes '%' in the paths that it is given. Of a text whose name would be too long the
    beginning stays, with a digest of all of it behind ``~~``, which nothing else contains.

    >>> file_name("price/unit"), file_name("Größe"), file_name("..")
    ('price~2Funit', 'Gr~C3~B6~C3~9Fe', '~2E.')
    """
    escaped = _ESCAPED.sub(lambda found: "".join(f"~{byte:02X}" for byte in found[0].encode()), text)
    if len(escaped) <= MAX_FILE_NAME:
        return escaped or "~"
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{escaped[:100]}~~{digest}"

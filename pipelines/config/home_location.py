"""Where a home lies: a folder, or a URI of which every node keeps what it touches in a folder of its own. Paths only.

<cache>/.mind-mirror/s3/bucket/prefix/datasets/ml-1m/...    is of    s3://bucket/prefix/datasets/ml-1m/...
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

FOLDER = ".mind-mirror"  # the component of a path after which the URI comes; nobody else has a folder of that name
SCHEMES = ("s3", "gs")


def home_folder(home: str) -> Path:
    """Find the local folder of a home: itself, or its mirror below ``MIND_CACHE`` (else the temporary folder).

    Raises
    ------
    ValueError
        For a URI of another kind, or one with credentials or parameters: they would become part of a path.
    """
    scheme, separator, rest = home.partition("://")
    if not separator:
        folder = Path(home).expanduser().resolve()
        if origin(folder) is not None:
            raise ValueError(f"home={home}: is this machine's copy of {origin(folder)}; give that address")
        return folder
    if scheme == "file":
        return Path("/", rest.lstrip("/")).resolve()
    if scheme not in SCHEMES:
        raise ValueError(f"home={home}: must be a path, or a URI that begins with s3:// or gs://")
    if re.search(r"[@?]", rest) or not rest.strip("/"):
        raise ValueError(f"home={home}: must be {scheme}://bucket/prefix alone; credentials and AWS_ENDPOINT_URL come "
                         "from the environment of every node")  # fmt: skip
    cache = Path(os.environ.get("MIND_CACHE") or tempfile.gettempdir()).expanduser().resolve()
    return cache / FOLDER / scheme / rest.strip("/")


def origin(path: str | Path) -> str | None:
    """Find the URI that a mirrored path is of; None for any other path."""
    _, found, rest = str(path).partition(f"/{FOLDER}/")
    scheme, slash, where = rest.partition("/")
    return f"{scheme}://{where}" if found and slash and scheme in SCHEMES else None


def shown(path: str | Path) -> str:
    """Write a path as its owner knows it."""
    return origin(path) or str(path)

"""What every file of a model is, in its config.json, and a digest over config.json itself: no byte changes unnoticed.

    {..., "files": {"weights.safetensors": {"bytes": 1234, "sha256": "..."}, ...}, "digest": "..."}

The digest is of the content, not of its layout: keys sorted, without blanks, "digest" left out. It tells damage and
mistakes, not a forger, who can write a new one; whatever config.json says is therefore checked as any other input.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pipelines.config.home_location import shown
from pipelines.config.numbers import show_bytes
from pipelines.errors import UserError

MAX_BYTES = 16 * 2**20  # of config.json; thousands of features take less
FILES, DIGEST = "files", "digest"
RESTORE = "the model is damaged or was changed: copy it again, or train it again"

Json = dict[str, Any]


def sealed(content: Json, folder: Path) -> str:
    """Write the text of a config.json that vouches for `content` and for every file that is in `folder` by now."""
    files = {name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in _files(folder).items()}
    whole = {**content, FILES: files}
    return json.dumps({**whole, DIGEST: content_digest(whole)}, indent=1, ensure_ascii=False) + "\n"


def content_digest(content: Json) -> str:
    """Return the SHA-256 of a JSON object's content, without its own digest."""
    counted = {key: value for key, value in content.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(counted, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_json(file: Path) -> Json:
    """Read the JSON object in a file that may come from anywhere.

    Raises
    ------
    UserError
        For anything else, and for a file of more than MAX_BYTES.
    """
    if (size := file.stat().st_size) > MAX_BYTES:
        raise UserError(
            f"{shown(file)}: has {show_bytes(size)}, more than the {show_bytes(MAX_BYTES)} that it may have"
        )
    try:
        content = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown(file)}: is no JSON ({error}); {RESTORE}") from None
    if not isinstance(content, dict):
        raise UserError(f"{shown(file)}: must hold a JSON object, found {type(content).__name__}; {RESTORE}")
    return content


def require_seal(file: Path, content: Json) -> None:
    """See that config.json says what it said when it was written.

    Raises
    ------
    UserError
    """
    if content.get(DIGEST) != content_digest(content):
        raise UserError(f"{shown(file)}: its content does not match its digest; {RESTORE}")


def require_files(folder: Path, content: Json) -> None:
    """See that the folder holds the files that config.json names, byte for byte, and no others.

    Raises
    ------
    UserError
        Naming the first that is missing, strange or changed.
    """
    recorded, there = content.get(FILES), _files(folder)
    if not isinstance(recorded, dict):
        raise UserError(f"{shown(folder)}: config.json names no files; {RESTORE}")
    for name in sorted(there.keys() | recorded.keys()):
        if name not in there:
            raise UserError(f"{shown(folder / name)}: is missing; {RESTORE}")
        if name not in recorded:
            raise UserError(
                f"{shown(folder / name)}: is no file of this model (config.json does not name it); remove it"
            )
        expected, path = recorded[name], there[name]
        if not isinstance(expected, dict) or path.stat().st_size != expected.get("bytes"):
            found = f"{path.stat().st_size:,} bytes"
            wanted = expected.get("bytes") if isinstance(expected, dict) else expected
            raise UserError(f"{shown(path)}: has {found}, config.json says {wanted}; {RESTORE}")
        if _sha256(path) != expected.get("sha256"):
            raise UserError(f"{shown(path)}: its content does not match its digest in config.json; {RESTORE}")


def _files(folder: Path) -> dict[str, Path]:
    """All files by their path within the folder, but for config.json."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    files.pop("config.json", None)
    return files


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

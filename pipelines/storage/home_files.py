"""A home at a URI: whoever writes a file to this node's copy of it pushes it, whoever reads one fetches it first.

Paths that are copies say so themselves (pipelines.config.home_location). Any other path is left as it is, so that the
stages need not know where their home lies. An object store renames nothing and keeps no folders: what must be replaced
at once there has a new name each time and a pointer (pipelines.storage.generations), or a file that is written last
(`push_folder`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.config.home_location import FOLDER, origin, shown
from pipelines.config.redact import redact
from pipelines.errors import UserError
from pipelines.storage.at_once import at_once
from pipelines.storage.filesystems import hint, open_filesystem, reason


def push(path: Path) -> None:
    """Copy a file that was written here to where it is of; whole, or not at all."""
    if (uri := origin(path)) is not None:
        with _named(uri):
            filesystem, where = _open(uri)
            with path.open("rb") as source, filesystem.open_output_stream(where) as sink:
                shutil.copyfileobj(source, sink, 8 * 2**20)


def fetch(path: str | Path) -> Path:
    """Return the same path, with the file there if it has an origin: for files that never change under their name.

    Raises
    ------
    UserError
        If the store does not answer.
    FileNotFoundError
        If it has no such file.
    """
    path = Path(path)
    if origin(path) is not None and not path.exists():
        with _alone(path):
            if not path.exists():  # another process of this node was faster
                _download(path)
    return path


def renew(path: Path) -> Path:
    """Return the same path, with the file as it now is at its origin, or without it: for files that change."""
    if origin(path) is not None:
        try:
            _download(path)
        except FileNotFoundError:
            path.unlink(missing_ok=True)
    return path


def renew_files(folder: Path, *patterns: str) -> None:
    """Call `renew` on all files of a folder whose path within it matches a pattern; those that have no origin go."""
    if origin(folder) is None:
        return
    there = [file for pattern in patterns for file in listed(folder, pattern)]
    for file in folder.rglob("*"):
        inside = file.relative_to(folder).as_posix()
        if file.is_file() and file not in there and any(fnmatch(inside, pattern) for pattern in patterns):
            file.unlink(missing_ok=True)
    at_once(_download, there)


def push_files(folder: Path) -> None:
    """Push all files of a folder that others add to as well."""
    if origin(folder) is not None:
        at_once(push, [file for file in folder.rglob("*") if file.is_file()])


def push_folder(folder: Path) -> None:
    """Push all files of a folder of this process alone; JSON at its top, which says that it is whole, comes last."""
    if origin(folder) is None:
        return
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    last = [file for file in files if file.parent == folder and file.suffix == ".json"]
    gone = set(listed(folder, "*")) - set(files)
    # not whole from here on
    at_once(remove, [file for file in gone if file.parent == folder and file.suffix == ".json"])
    at_once(push, [file for file in files if file not in last])
    at_once(push, last)
    at_once(remove, gone)


def fetch_folder(folder: Path) -> Path:
    """Return the folder with all that `push_folder` has pushed; a copy of what is no longer there is replaced."""
    uri = origin(folder)
    if uri is None:
        return folder
    with _alone(folder):
        infos = {_mirrored(folder, uri, info.path): info.size for info in _infos(uri)}
        marks = [file for file in infos if file.parent == folder and file.suffix == ".json"]
        before = {file: file.read_bytes() for file in marks if file.is_file()}
        at_once(_download, marks)
        same = all(before.get(file) == file.read_bytes() for file in marks)
        stale = (file for file, size in infos.items() if not same or not file.is_file() or file.stat().st_size != size)
        at_once(_download, [file for file in stale if file not in marks])
        for file in folder.rglob("*"):
            if file.is_file() and file not in infos:
                file.unlink()
    return folder


def exists(path: Path) -> bool:
    """Say whether there is such a file, at its origin if it has one."""
    uri = origin(path)
    if uri is None:
        return path.exists()
    with _named(uri):
        filesystem, where = _open(uri)
        return bool(filesystem.get_file_info(where).type != pafs.FileType.NotFound)


def size_of(path: Path) -> int:
    """Return a file's bytes."""
    uri = origin(path)
    if uri is None:
        return path.stat().st_size
    with _named(uri):
        filesystem, where = _open(uri)
        return int(filesystem.get_file_info(where).size)


def listed(folder: Path, pattern: str) -> list[Path]:
    """List the files in a folder, at any depth, whose path within it matches `pattern` (``*`` crosses folders)."""
    uri = origin(folder)
    if uri is None:
        files: Iterable[Path] = (file for file in folder.rglob("*") if file.is_file())
    else:
        files = (_mirrored(folder, uri, info.path) for info in _infos(uri))
    return sorted(file for file in files if fnmatch(file.relative_to(folder).as_posix(), pattern))


def total_size(folder: Path, pattern: str) -> int:
    """Add up the bytes of the files that `listed` lists; a store tells it where it lists them."""
    uri = origin(folder)
    if uri is None:
        return sum(file.stat().st_size for file in listed(folder, pattern))
    sizes = {_mirrored(folder, uri, info.path): int(info.size) for info in _infos(uri)}
    return sum(size for file, size in sizes.items() if fnmatch(file.relative_to(folder).as_posix(), pattern))


def names(folder: Path) -> list[str]:
    """Name the files and folders in a folder; none without one."""
    uri = origin(folder)
    if uri is None:
        return sorted(os.listdir(folder)) if folder.is_dir() else []
    return sorted(Path(info.path).name for info in _infos(uri, recursive=False))


def changed_at(path: Path) -> float:
    """Say when a file was last written, seconds since 1970."""
    uri = origin(path)
    if uri is None:
        return path.stat().st_mtime
    with _named(uri):
        filesystem, where = _open(uri)
        return float(filesystem.get_file_info(where).mtime_ns or 0) / 1e9


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, here and at its origin; nothing there is fine."""
    forget(path)
    if (uri := origin(path)) is not None:
        with _named(uri):
            filesystem, where = _open(uri)
            kind = filesystem.get_file_info(where).type
            if kind == pafs.FileType.Directory:
                filesystem.delete_dir(where)
            elif kind == pafs.FileType.File:
                filesystem.delete_file(where)


def forget(path: Path) -> None:
    """Delete this node's copy alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copy a file within a mirrored home without its bytes passing here."""
    uris = origin(source), origin(target)
    assert uris[0] is not None, "else it is the caller's to link or to copy"
    assert uris[1] is not None, "else it is the caller's to link or to copy"
    with _named(uris[1]):
        filesystem, where = _open(uris[0])
        filesystem.copy_file(where, _open(uris[1])[1])


def located(files: Sequence[str | Path]) -> tuple[Any, list[str]]:
    """Find the file system that files of one home lie on, and their paths there: to read them without a copy here."""
    uris = [origin(file) for file in files]
    if uris[0] is None:
        return pafs.LocalFileSystem(), list(map(str, files))
    with _named(uris[0]):
        places = [_open(uri) for uri in uris if uri is not None]
        return places[0][0], [where for _, where in places]


def read_in_place(file: str | Path, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a Parquet file; of one in a store, the others' bytes stay there."""
    filesystem, (path,) = located([file])
    with _named(shown(file)):
        return pq.read_table(path, columns=list(columns), filesystem=filesystem, partitioning=None)


def storage(folder: Path) -> dict[str, Any]:
    """Return `storage_path` and `storage_filesystem` of a Ray RunConfig that keeps its files in `folder`."""
    uri = origin(folder)
    if uri is None:
        return {"storage_path": str(folder)}
    filesystem, where = _open(uri)
    return {"storage_path": where, "storage_filesystem": filesystem}


def _mirrored(folder: Path, uri: str, where: str) -> Path:
    """Return the path here of what lies at `where` on the file system of the folder's URI."""
    return folder / Path(where).relative_to(_open(uri)[1])


def _infos(uri: str, recursive: bool = True) -> list[Any]:
    with _named(uri):
        filesystem, where = _open(uri)
        selector = pafs.FileSelector(where, allow_not_found=True, recursive=recursive)
        found = filesystem.get_file_info(selector)
        # the object that stands for a folder ends with a slash, and some stores list the folder itself
        return [each for each in found if not recursive or each.type == pafs.FileType.File]


def _download(path: Path) -> None:
    uri = origin(path)
    assert uri is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.writing-{uuid.uuid4().hex[:12]}")
    try:
        with _named(uri):
            filesystem, where = _open(uri)
            with filesystem.open_input_stream(where) as source, aside.open("wb") as sink:
                shutil.copyfileobj(source, sink, 8 * 2**20)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep the other processes of this node from downloading the same."""
    locks = Path(str(path).partition(f"/{FOLDER}/")[0], FOLDER, ".locks")
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / hashlib.blake2b(str(path).encode(), digest_size=8).hexdigest()).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextmanager
def _named(uri: str) -> Iterator[None]:
    """Tell a store's refusal in one line with the URI in it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{redact(uri)}: {reason(error)}{hint(uri)}") from None


def _open(uri: str) -> tuple[Any, str]:
    scheme, _, where = uri.partition("://")
    return _filesystem(scheme, where.partition("/")[0]), where


@lru_cache
def _filesystem(scheme: str, bucket: str) -> Any:
    return open_filesystem(f"{scheme}://{bucket}")[0]

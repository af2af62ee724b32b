"""What a disk or the memory refused is one line, whichever library said it and in whichever process."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import UserError, machine_error, user_error


class Wrapped(Exception):
    """As Ray's errors do, it carries the other process's exception."""

    def __init__(self, cause: BaseException | None = None, text: str = "the remote traceback", **more: Any):
        super().__init__(text)
        self.cause = cause
        vars(self).update(more)


class OutOfMemoryError(Exception):
    pass


class ActorDiedError(Exception):
    pass


FULL = OSError(errno.ENOSPC, "No space left on device", "/home/x")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        Wrapped(FULL),
        Wrapped(worker_failures={0: Wrapped(FULL)}),
        Wrapped(controller_failure=FULL),
        Wrapped(text='I/O error: "/home/x" No space left on device (os error 28)'),
        OSError("[Errno 28] Error writing bytes to file '/home/x'. Detail: [errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_named_by_its_path(error: BaseException) -> None:
    found = machine_error(error)
    assert found is not None
    assert str(found).startswith("/home/x: no space is left on the disk; free some")
    assert "goes on where it stopped" in str(found)
    assert user_error(error) is None


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_cannot_be_written_is_named(number: int) -> None:
    found = machine_error(PermissionError(number, os.strerror(number), "/home/x"))
    assert found is not None
    assert str(found).startswith("/home/x: ")
    assert "--home" in str(found)


def test_a_real_refusal_is_told(tmp_path: Path) -> None:
    tmp_path.joinpath("x").touch()
    with pytest.raises(OSError, match="No space") as caught, Path("/dev/full").open("w") as full:
        full.write("x" * 100_000)
    assert "no space is left" in str(machine_error(caught.value))


RAY = (
    "Task was killed due to the node running low on memory.\nMemory on the node (IP: 10.0.0.1, ID: abc) was 22.87GB "
    "used / 24.00GB limit (0.953), which exceeds the threshold. (name=RankUsers, pid=12, actual memory used=3.21GB, "
    "worker ID=x)"
)


def test_a_worker_that_was_killed_for_memory_is_told_with_figures() -> None:
    found = str(machine_error(Wrapped(OutOfMemoryError(RAY))))
    assert found.startswith(
        "Ray ended RankUsers as memory ran out (22.87 of 24.00 GB were in use, 3.21 GB by it); ask for"
    )
    assert "train.workers" in found
    assert "\n" not in found


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to "
                     "allocate 40000000000 bytes."),
        ActorDiedError("The actor died: killed due to memory pressure (OOM)"),
    ],
)  # fmt: skip
def test_memory_that_ran_out_anywhere_is_one_line(error: BaseException) -> None:
    found = str(machine_error(error))
    assert "memory" in found
    assert "\n" not in found


@pytest.mark.parametrize(
    "error",
    [None, ValueError("x"), RuntimeError("y"), OSError(errno.ECONNREFUSED, "no"), KeyError("OOM"), UserError("mine"),
     PermissionError(errno.EACCES, "a socket"), FileNotFoundError(errno.ENOENT, "no", "/x")],
)  # fmt: skip
def test_other_errors_are_left_alone(error: BaseException | None) -> None:
    assert machine_error(error) is None


def test_the_path_of_a_full_disk_is_never_that_of_code() -> None:
    trace = 'File "/lib/ray/map_operator.py", line 7, in run\nOSError: [Errno 28] No space left on device'
    assert str(machine_error(RuntimeError(f"{trace}: '/data/home/x.parquet'"))).startswith("/data/home/x.parquet: ")
    assert str(machine_error(RuntimeError(trace))).startswith("a file: no space is left")

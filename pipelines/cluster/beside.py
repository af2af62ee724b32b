"""Imports beside Ray's start: this process's in a thread, while it waits; Ray's processes', before they work."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

# What Ray Train gives its controller, if it is set, and not its workers: with it set, the processes of both are alike.
ALIKE = {"RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0"}


@contextmanager
def imported_beside(*modules: str) -> Iterator[None]:
    """Import modules in a thread from here on; the block's own imports of them wait for it, and so does its end."""
    thread = threading.Thread(target=_import, args=(modules,), name="imports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def ready_for_training(modules: Sequence[str], workers: int) -> list[Any]:
    """Have Ray start the processes of a training, and import, while this process does something else; needs Ray.

    Ray Train's controller and its workers each get an idle process that has imported what they need, if there is one
    of their environment, and else a new one.

    Returns
    -------
    References of the tasks that import, which nobody need wait for.
    """
    import ray

    os.environ.update({name: os.environ.get(name, value) for name, value in ALIKE.items()})
    given = {name: value for name, value in os.environ.items() if name.startswith("RAY_TRAIN_") or name in ALIKE}
    task = ray.remote(num_cpus=0, max_retries=0, runtime_env={"env_vars": given})(_import)
    return [task.remote(list(modules)) for _ in range(workers + 1)]


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        with suppress(ImportError):  # who needs it says so
            importlib.import_module(module)

"""Imports beside Ray's start: this process's in a thread, while it waits; Ray's processes', before they work."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

# What Ray Train gives its controller, if it is set, and not its workers: with it set, the processes of both are alike.
ALIKE = {"RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0"}

PATIENCE_S = 60.0  # after which a training starts without


@contextmanager
def imported_beside(*modules: str) -> Iterator[None]:
    """Import modules in a thread from here on; the block's own imports of them wait for it, and so does its end."""
    thread = threading.Thread(target=_import, args=(modules,), name="imports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextmanager
def ready_for_training(modules: Sequence[str], workers: int) -> Iterator[None]:
    """Have Ray start the processes of a training, and import, during the block; they are idle after it. Needs Ray.

    Ray Train's controller and its workers each get an idle process of their environment, if there is one: it has
    imported then what they need. While it is still at it they would be given new ones, which begin again.
    """
    import ray

    os.environ.update({name: os.environ.get(name, value) for name, value in ALIKE.items()})
    given = {name: value for name, value in os.environ.items() if name.startswith("RAY_TRAIN_") or name in ALIKE}
    task = ray.remote(num_cpus=0, max_retries=0, runtime_env={"env_vars": given})(_import)
    imports = [task.remote(list(modules)) for _ in range(workers + 1)]
    yield
    ray.wait(imports, num_returns=len(imports), timeout=PATIENCE_S)


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        with suppress(Exception):  # who needs it says so
            importlib.import_module(module)

"""Imports beside Ray's start: in a thread of this process, while it waits."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress


@contextmanager
def imported_beside(*modules: str) -> Iterator[None]:
    """Import modules in a thread from here on; the block's own imports of them wait for it, and so does its end.

    A block that ends by an exception does not wait: a signal amid an import may have left the import system locked.
    """
    thread = threading.Thread(target=_import, args=(modules,), name="imports", daemon=True)
    thread.start()
    yield
    thread.join()


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        with suppress(Exception):  # who needs it says so
            importlib.import_module(module)

"""Imports beside Ray's start: in a thread of this process, while it waits."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress


@contextmanager
def imported_beside(*modules: str) -> Iterator[None]:
    """Import modules in a thread from here on; the block's own imports of them wait for it, and so does its end."""
    thread = threading.Thread(target=_import, args=(modules,), name="imports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        with suppress(Exception):  # who needs it says so
            importlib.import_module(module)

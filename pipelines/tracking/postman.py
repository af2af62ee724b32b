"""A thread that delivers what waits, so that nobody else waits for the store."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Postman:
    """Calls `deliver` in a thread of its own, once for any number of `wake` calls that come while it works.

    deliver : must not raise. The thread does not keep the process alive: what waits is on a disk.
    """

    def __init__(self, deliver: Callable[[], None]) -> None:
        self._deliver = deliver
        self._woken = threading.Event()
        threading.Thread(target=self._work, name="postman", daemon=True).start()

    def wake(self) -> None:
        """Say that something waits; returns at once."""
        self._woken.set()

    def _work(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()
            self._deliver()

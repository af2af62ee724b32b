"""Where a step's time goes. Off by default: telling phases apart on a GPU means waiting for it at every boundary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PHASES = ("wait", "draw", "gather", "forward", "backward", "exchange", "update")
"""wait for input · draw windows and negatives, find the distinct rows · copy rows out of the tables (and, sharded, from
their owners) · forward, loss · backward, dense gradients averaged over ranks · row gradients exchanged · optimisers."""


class StepTimes:
    """Seconds by phase, summed over steps.

    Parameters
    ----------
    device : of the model; a CUDA device is synchronised where a phase begins and ends.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.steps = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside the block for `name`; what a block inside it counts is not counted twice."""
        start, inner = self._now(), sum(self.seconds.values())
        yield
        nested = sum(self.seconds.values()) - inner
        self.seconds[name] += self._now() - start - nested

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

"""Ray Train's trainer, without what a Ray that has no dashboard cannot do."""

from __future__ import annotations

from typing import Any

import ray
from ray.train.torch import TorchTrainer

ASKS_THE_DASHBOARD = "PlacementGroupCleanerCallback"


class Trainer(TorchTrainer):
    """A TorchTrainer that leaves out the cleaner of placement groups where nobody would answer it.

    The cleaner is an actor of its own that asks the dashboard's State API, second by second, whether the controller is
    alive; without a dashboard each question waits, and the end of a training with it, for ten seconds. A placement
    group goes with its job all the same.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]  # typed as Train V1
        if ray._private.worker.get_dashboard_url():
            return callbacks
        return [each for each in callbacks if type(each).__name__ != ASKS_THE_DASHBOARD]

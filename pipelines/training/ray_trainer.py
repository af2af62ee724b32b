"""Ray Train's trainer, without what a Ray that has no dashboard cannot do, and without what no training here needs."""

from __future__ import annotations

from typing import Any

import ray
from ray.train.torch import TorchTrainer

ASKS_THE_DASHBOARD = "PlacementGroupCleanerCallback"
HANDS_OUT_DATASETS = "DatasetsCallback"


class Trainer(TorchTrainer):
    """A TorchTrainer that leaves out the cleaner of placement groups where nobody would answer it.

    The cleaner is an actor of its own that asks the dashboard's State API, second by second, whether the controller is
    alive; without a dashboard each question waits, and the end of a training with it, for ten seconds. A placement
    group goes with its job all the same.

    Without `datasets` (workers here read files themselves) there is no actor that hands them out either: a process less
    to be started beside the workers.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]  # typed as Train V1
        for each in callbacks:
            if type(each).__name__ == HANDS_OUT_DATASETS and not self.datasets:
                each.before_init_train_context = _hands_out_nothing  # it still tells workers the settings of Ray Data
        if ray._private.worker.get_dashboard_url():
            return callbacks
        return [each for each in callbacks if type(each).__name__ != ASKS_THE_DASHBOARD]


def _hands_out_nothing(workers: list[Any]) -> dict[str, list[Any]]:
    """Add nothing to what each worker is told."""
    return {}

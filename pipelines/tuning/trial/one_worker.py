"""A trial of one worker: Ray Tune's actor trains it itself, and is used again for trial after trial.

A process per trial would import torch each time: seconds, beside trainings of minutes.
"""

from __future__ import annotations

import os
from typing import Any

from pipelines.cluster.environment import WORKER_ENVIRONMENT

os.environ.update({name: os.environ.get(name, value) for name, value in WORKER_ENVIRONMENT.items()})  # before torch

import torch
from ray import tune

from pipelines.dataset.dataset import Dataset
from pipelines.tuning.trial.shared_data import shared_data
from pipelines.tuning.trial.training import Common, Result, failed, results_of


class OneWorkerTrial(tune.Trainable):
    """One step is one validation: that Tune asks for the next says that the trial goes on."""

    def setup(self, config: dict[str, Any], common: Common, data: Any) -> None:  # type: ignore[override]
        """Take in what all trials share (tune.with_parameters); data : what `share_data` stored."""
        torch.set_num_threads(common.threads)
        self.common = common
        self.device = torch.device("cuda" if common.base.train.use_gpu else "cpu")
        self.dataset = Dataset.open(common.dataset)
        self.data = shared_data(data).to(self.device)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        self.results = results_of(new_config, self.common.base, self.dataset, self.data, self.device, 0, 1)
        return True

    def step(self) -> Result:
        try:
            return next(self.results)
        except Exception as error:
            if self.device.type == "cuda":  # its errors may stick: Tune tries again in a fresh process
                raise
            return failed(error)

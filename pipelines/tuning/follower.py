"""A trial as Ray Tune sees it: a light actor that relays the reports of the workers which train it.

It needs no CPU and is used again for trial after trial. That Tune asks for the next step says that the trial goes on;
how a stop reaches the workers: pipelines.tuning.dispatcher.
"""

from __future__ import annotations

from typing import Any

import ray
import ray.exceptions
from ray import tune

from pipelines.tuning.dispatcher import Followed, Job

# Keys of the results that Tune gets. `done` says the same as `last` for Tune, which also sets it when it stops a trial.
QUALITY, EPOCH, REPORTS, LAST, FAILURE, LOST = "quality", "epoch", "reports", "last", "failure", "lost"


class Follower(tune.Trainable):
    """config : job (Job), dispatcher (actor handle), metric (of the validation, such as ``ndcg@20``)."""

    def setup(self, config: dict[str, Any]) -> None:
        self.place = 0
        job: Job = config["job"]
        ray.get(config["dispatcher"].submit.remote(job))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        job: Job = self.config["job"]
        try:
            followed: Followed = ray.get(self.config["dispatcher"].follow.remote(job.number, self.place))
        except ray.exceptions.RayActorError:
            return {FAILURE: "the dispatcher died", LOST: True, LAST: True, "done": True}
        self.place += len(followed.reports)
        if not followed.reports:
            return {FAILURE: followed.failure, LOST: followed.lost, LAST: True, "done": True}
        newest = followed.reports[-1]
        return {
            QUALITY: newest[f"validation/{self.config['metric']}"],
            EPOCH: newest["epoch"],
            REPORTS: followed.reports,
            LAST: followed.last,
            "done": followed.last,
        }

"""The pattern that Ray documents: a function trainable that starts a run of Ray Train for its trial.

    python train_in_tune.py CONF HOME TRIALS CONCURRENT

The training itself is that of `mind train`. Prints the seconds of a slot that a trial takes beyond its training.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")

import ray
import ray.train
from ray import tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from pipelines.cluster.session import ray_session
from pipelines.config.load import load_config
from pipelines.training.startup import Timeline
from pipelines.tuning.space import trial_config


def train_worker(settings: dict[str, Any]) -> None:
    """As a worker of `mind train`, and how long its training took."""
    from pipelines.training.worker import train_loop

    started = time.perf_counter()
    train_loop(settings)
    Path(settings["took"]).write_text(str(time.perf_counter() - started))


def main(conf: str, home: str, trials: int, concurrent: int) -> None:
    """Run the trials in a local Ray of their own."""
    base = load_config(conf, [f"home={home}", "train.workers=1", "tracking.system_metrics=false"])
    storage = Path(home) / "peer" / str(os.getpid())
    storage.mkdir(parents=True)

    def trial(values: dict[str, Any]) -> None:
        name = tune.get_context().get_trial_id()
        TorchTrainer(
            train_worker,
            train_loop_config={
                "config": trial_config(base, values),
                "dataset": str(base.dataset_path),
                "threads": 1,
                "input": "memory",
                "timeline": Timeline(),
                "took": str(storage / f"{name}.seconds"),
            },
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=1),
            run_config=ray.train.RunConfig(name=name, storage_path=str(storage), callbacks=[TuneReportCallback()]),
        ).fit()

    def campaign(trials: int) -> float:
        started = time.perf_counter()
        tune.Tuner(
            tune.with_resources(trial, {"CPU": 0.01}),
            param_space={"model.routing_scale": tune.loguniform(1, 100)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=concurrent),
            run_config=tune.RunConfig(storage_path=str(storage), name=f"peer-{trials}", verbose=0),
        ).fit()
        return time.perf_counter() - started

    with ray_session(base.ray.model_copy(update={"num_cpus": concurrent + 1}), dashboard=True):
        seconds = campaign(trials)
    trained = sum(float(file.read_text()) for file in storage.glob("*.seconds"))
    print((concurrent * seconds - trained) / trials)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

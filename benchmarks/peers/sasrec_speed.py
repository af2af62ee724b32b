"""What a step of RecTools' SASRec costs: targets/s and the peak of memory, as JSON.

    PYTHON -m benchmarks.peers.sasrec_speed DATA.npz --length 200 --batch 128 --steps 20 --threads 2

PYTHON is that of benchmarks/peers/install.py. Its defaults but for d and the length, as in `make bench-quality`: 2
blocks, 4 heads, dropout .2, Adam, an exact softmax at every position of a session. Padding counts for nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, Trainer
from rectools.models import SASRecModel

from benchmarks.measure import peak_bytes
from benchmarks.peers.lists import split_of
from benchmarks.peers.sequence_models import SILENT, as_interactions, prepare

WARM_UP = 3  # steps


class Stopwatch(Callback):
    """Counts targets and seconds of the steps after the warm-up, then ends the training."""

    def __init__(self, steps: int):
        self.steps, self.targets, self.started, self.seconds = steps, 0, 0.0, 0.0

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add up a step."""
        if batch_idx + 1 == WARM_UP:
            self.started = time.perf_counter()
        elif batch_idx + 1 > WARM_UP:
            self.targets += int((batch["y"] != 0).sum())
            self.seconds = time.perf_counter() - self.started
        trainer.should_stop = batch_idx + 1 == WARM_UP + self.steps


def main() -> None:
    """Train some steps of the first epoch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    for name, default in (("dim", 64), ("length", 200), ("batch", 128), ("steps", 20), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    prepare(arguments.threads, seed=0)
    with np.load(arguments.data) as file:
        interactions = as_interactions(split_of(dict(file), "train"))
    watch = Stopwatch(arguments.steps)
    model = SASRecModel(
        n_factors=arguments.dim,
        n_blocks=2,
        n_heads=4,
        dropout_rate=0.2,
        session_max_len=arguments.length,
        batch_size=arguments.batch,
        loss="softmax",
        epochs=1,
    )
    model._trainer = Trainer(**SILENT, max_epochs=1, callbacks=[watch])
    model.fit(interactions)
    (watch,) = (each for each in model.fit_trainer.callbacks if isinstance(each, Stopwatch))  # fit takes a copy
    rate = watch.targets / watch.seconds
    print(json.dumps({"rates": [rate], "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()

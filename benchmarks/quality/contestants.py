"""Who takes part in `make bench-quality`, with which settings; docs/results.md says where the peers' come from.

All of a contestant's settings are in one dict, which its process is given and its result is kept under.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.peers.install import RECHUB, RECTOOLS
from benchmarks.quality.data import EVERYBODY, FEW, Sample, conf_of
from benchmarks.quality.ours import config_of
from pipelines.config.load import config_hash
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.evaluation.baselines import LABELS

Kind = Literal["rule", "model", "peer"]
Settings = dict[str, Any]

EPOCHS, PATIENCE = 100, 5  # of peers that learn by epochs; ours have those of the data set's configuration
LOGITS = 2**27  # of a RecTools step, a float each for every place of a session and item: fewer sessions where more
RECHUB_SAMPLES = 500_000  # of an epoch of torch-rechub, drawn once; all where there are fewer
EASE_ITEMS = 20_000  # P is dense: 1.6 GB

OUR_CODE = (
    "mind_core/*.py",
    "pipelines/training/checkpoints.py",
    "pipelines/training/labels.py",
    "pipelines/training/loop.py",
    "pipelines/training/data.py",
    "pipelines/training/memory_input.py",
    "pipelines/dataset/tensors.py",
    "benchmarks/dataset_loop.py",
    "benchmarks/quality/ours.py",
)
RULE_CODE = (
    "mind_core/baselines.py",
    "mind_core/inference.py",
    "pipelines/evaluation/baselines.py",
    "pipelines/evaluation/neighbours.py",
    "benchmarks/quality/ours.py",
)
PEER_CODE = ("benchmarks/peers/lists.py", "benchmarks/peers/export.py")
RECHUB_CODE = ("benchmarks/peers/rechub.py",)


@dataclass(frozen=True)
class Asked:
    """What the command was asked for.

    quick : a smoke run.  cap_seconds : of training at most.  threads : of a process.
    kept : nothing is run, results that were kept are shown.
    """

    quick: bool = False
    cap_seconds: float = 3600.0
    threads: int = 2
    kept: bool = False

    @property
    def sample(self) -> Sample:
        return FEW if self.quick else EVERYBODY


@dataclass(frozen=True)
class Contestant:
    """One row of the tables.

    seeded : it has something random; otherwise one run stands for all seeds.
    own : its own settings for a data set.
    module, environment : of a peer: what `python -m` runs, and whose Python (benchmarks/peers/install.py).
    code : files whose change makes it another contestant.
    """

    name: str
    label: str
    kind: Kind
    seeded: bool
    code: tuple[str, ...]
    own: Callable[[Config, Dataset, Asked], Settings] = lambda config, dataset, asked: {}
    module: str = ""
    environment: str = ""

    def settings(self, config: Config, dataset: Dataset, asked: Asked, seed: int) -> Settings:
        """Collect everything that its lists follow from, but the data and the code."""
        general = {"seed": seed if self.seeded else 0, "threads": asked.threads, "quick": asked.quick}
        return {**general, **self.own(config, dataset, asked)}

    def command(
        self, conf: Path, dataset: Path, arrays: Path, out: Path, settings: Settings, pythons: dict[str, Path]
    ) -> list[str]:
        """Write the command of its process, to be run in the repository."""
        words = json.dumps(settings)
        if self.kind != "peer":
            places = [str(conf), str(dataset), str(out)]
            return [sys.executable, "-m", "benchmarks.quality.ours", self.kind, self.name, *places, words]
        name = self.name.split("_")[-1]
        return [str(pythons[self.environment]), "-m", self.module, name, str(arrays), str(out), words]

    def absent(self, config: Config) -> str | None:
        """Say why it has no place in a data set's table; None if it has."""
        if self.name == "personal_frequency" and config.evaluate.seen == "filter":
            return "recommends seen items only, which are filtered"
        return None


def preset(preset: str, *sets: str) -> Callable[[Config, Dataset, Asked], Settings]:
    """Make the settings of a model of ours."""

    def own(config: Config, dataset: Dataset, asked: Asked) -> Settings:
        settings: Settings = {"preset": preset, "sets": list(sets), "cap_seconds": asked.cap_seconds}
        resolved = config_of(conf_of(config.name), {**settings, "quick": asked.quick})
        return {**settings, "config": config_hash(resolved, ("model", "loss", "optim", "train", "evaluate"))}

    return own


def _chosen_by(config: Config) -> Settings:
    return {"metric": config.train.metric, "seen": config.evaluate.seen}


def ials(config: Config, dataset: Dataset, asked: Asked) -> Settings:
    """What it chooses from, one setting after the other; the first ones are what it begins with."""
    grid = {"alpha": [1.0, 0.1, 10.0, 40.0], "regularization": [10.0, 1.0, 100.0, 300.0], "factors": [64, 128, 256]}
    if asked.quick:
        grid = {name: values[:1] for name, values in grid.items()}
    return {**_chosen_by(config), **grid, "iterations": 15}


def ease(config: Config, dataset: Dataset, asked: Asked) -> Settings:
    """Lambda as RecTools has it, and below, as the sets here are small."""
    grid = [500.0] if asked.quick else [20.0, 100.0, 500.0]
    return {**_chosen_by(config), "regularization": grid, "items": EASE_ITEMS}


def transformer(config: Config, dataset: Dataset, asked: Asked) -> Settings:
    """RecTools' defaults, with our d and L, and its full softmax."""
    length = config.model.max_history
    return {
        **_chosen_by(config),
        "session_max_len": length,
        "n_factors": config.model.dim,
        "n_blocks": 2,
        "n_heads": 4,
        "dropout_rate": 0.2,
        "loss": "softmax",
        "lr": 1e-3,
        "batch_size": max(1, min(128, LOGITS // (length * dataset.manifest.item_rows))),
        **_epochs(asked),
    }


def rechub_mind(config: Config, dataset: Dataset, asked: Asked) -> Settings:
    """Its tutorial's, with our d, L and K."""
    return {
        **_chosen_by(config),
        "length": config.model.max_history,
        "dim": config.model.dim,
        "interests": config.model.interests,
        "learning_rate": 5e-3,  # the best for it of 1e-3 (the tutorial's), 5e-3 and 2e-2
        "batch": 256,
        "samples": RECHUB_SAMPLES,
        **_epochs(asked),
    }


def _epochs(asked: Asked) -> Settings:
    return {"epochs": 1 if asked.quick else EPOCHS, "patience": PATIENCE, "cap_seconds": asked.cap_seconds}


def _rule(name: str) -> Contestant:
    return Contestant(name, LABELS[name], "rule", False, RULE_CODE, lambda config, dataset, asked: _chosen_by(config))


def _peer(
    name: str,
    label: str,
    module: str,
    environment: str,
    own: Callable[[Config, Dataset, Asked], Settings],
    seeded: bool = True,
    code: tuple[str, ...] = (),
) -> Contestant:
    file = f"benchmarks/peers/{module}.py"
    code = (*PEER_CODE, file, *code)
    return Contestant(name, label, "peer", seeded, code, own, f"benchmarks.peers.{module}", environment)


def _model(name: str, label: str, own: Callable[[Config, Dataset, Asked], Settings]) -> Contestant:
    return Contestant(name, label, "model", True, OUR_CODE, own)


DEFAULT = "default"  # which the others are compared with
CONTESTANTS = (
    *map(_rule, LABELS),
    _peer("ials", "iALS (implicit)", "factor_models", "rectools", ials),
    _peer("ease", "EASE", "factor_models", "rectools", ease, seeded=False),
    _peer("rectools_sasrec", "SASRec (RecTools)", "sequence_models", "rectools", transformer),
    _peer("rectools_bert4rec", "BERT4Rec (RecTools)", "sequence_models", "rectools", transformer),
    _peer(
        "rechub_mind",
        "MIND (torch-rechub)",
        "rechub_lists",
        "rechub",
        rechub_mind,
        code=RECHUB_CODE,
    ),
    _model("youtube_dnn", "ours, youtube_dnn", preset("youtube_dnn")),
    _model("paper", "ours, paper", preset("paper")),
    _model("sasrec", "ours, sasrec", preset("sasrec")),
    _model("context", "ours, context", preset("context")),
    _model("default_k1", "ours, default, K = 1", preset("default", "model.interests=1")),
    _model(DEFAULT, "ours, default", preset("default")),
)
REQUIREMENTS = {"rectools": RECTOOLS, "rechub": RECHUB}

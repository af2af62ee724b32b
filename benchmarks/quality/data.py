"""The data sets of `make bench-quality`: where they are, which rows take part, and what test users are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa

from benchmarks.measure import REPOSITORY, say
from mind_core.evaluation import Targets
from mind_core.sequences import Sequences
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SplitName
from pipelines.dataset.tensors import feature_specs, to_sequences, to_targets
from pipelines.errors import UserError

NAMES = ("beauty", "ml-1m", "tmall", "complete-journey", "online-retail")
PACKAGE = "package://"


@dataclass(frozen=True)
class Sample:
    """How many users of each split take part, in the order of their numbers, which is that of a hash; None: all."""

    train: int | None = None
    validation: int | None = 4000  # of peers; a model of ours validates as `mind train` does
    test: int | None = None


EVERYBODY = Sample()
FEW = Sample(train=500, validation=300, test=300)  # of --quick


def rows(dataset: Dataset, split: SplitName, sample: Sample) -> pa.Table:
    """Read the rows of a split that take part, by the user's number."""
    return dataset.table(split).sort_by("user").slice(0, getattr(sample, split))


def asked_users(dataset: Dataset, sample: Sample) -> tuple[Sequences, Targets]:
    """Read the histories of the test users, in the order of a contestant's lists, and what is to be found."""
    table = rows(dataset, "test", sample)
    return to_sequences(table, feature_specs(dataset.manifest.profile_features)), to_targets(table)


def conf_of(name: str) -> Path:
    """Find the configuration of a data set."""
    return REPOSITORY / "conf" / f"{name}.yaml"


def prepared(name: str, home: Path) -> Dataset | str:
    """Open a data set in `home`, where `mind preprocess` makes it if it is missing or of other settings.

    Returns a line that says why where its files are not at hand.
    """
    config = load_config(conf_of(name))
    folder = home / "datasets" / config.name
    if (found := _opened(folder, config)) is not None:
        return found
    if not _at_hand(config):
        return f"{name}: left out, {config.data.events.path} is not there"
    from benchmarks.cli_runs import mind

    say(f"  {name}: mind preprocess, into {home}")
    mind("preprocess", str(conf_of(name)), "--home", str(home))
    return Dataset.open(folder)


def _opened(folder: Path, config: Config) -> Dataset | None:
    try:
        dataset = Dataset.open(folder)
    except UserError:
        return None
    return dataset if dataset.config == config.data else None


def _at_hand(config: Config) -> bool:
    path = config.data.events.path
    if path.startswith(PACKAGE):
        return find_spec(path.removeprefix(PACKAGE).split("/")[0]) is not None
    return (REPOSITORY / path).exists()

"""The test users of the planted log, for whichever `model` a file of tests has."""

import pyarrow as pa
import pytest

from mind_core.sequences import Sequences
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import feature_specs, to_sequences
from pipelines.models.artifact import SavedModel


@pytest.fixture(scope="module")
def table(config: Config) -> pa.Table:
    return Dataset.open(config.dataset_path).table("test")


@pytest.fixture(scope="module")
def sequences(model: SavedModel, table: pa.Table) -> Sequences:
    return to_sequences(table, feature_specs(model.card.profile_features))


@pytest.fixture(scope="module")
def users(config: Config, table: pa.Table) -> list[int]:
    """Raw ids of the test users."""
    ids: list[int] = Dataset.open(config.dataset_path).vocabulary("users")["id"].take(table["user"]).to_pylist()
    return ids

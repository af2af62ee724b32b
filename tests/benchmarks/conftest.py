"""A small data set, made without Ray."""

from __future__ import annotations

import pytest

from pipelines.config.schema import Config
from tests.pipelines.local_data import local_data
from tests.pipelines.planted import configure


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The configuration of a preprocessed log of 200 users and 150 items; seen items are kept."""
    from pipelines.preprocess.preprocess import preprocess
    from pipelines.preprocess.synthetic import generate

    folder = tmp_path_factory.mktemp("planted")
    with local_data():
        generate(folder / "log", events=6000, users=200, items=150, clusters=8)
        config = configure(folder / "home", folder / "log", workers=1)
        preprocess(config)
    return config

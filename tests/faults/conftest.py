"""An undisturbed run of every stage, made as far as the tests need it; what was found goes to build/faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.preprocess.synthetic import generate
from tests.faults.cases import Undisturbed

FOLDER = "MIND_FAULTS_FOLDER"  # environment: where the undisturbed runs are kept for the next time
RESULTS = Path(__file__).parents[2] / "build" / "faults"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = Path(os.environ.get(FOLDER) or tmp_path_factory.mktemp("undisturbed"))
    if not (folder / "log").is_dir():
        generate(folder / "log", events=6000, users=200, items=150, clusters=8)
    return Undisturbed(folder, folder / "log")


@pytest.fixture(scope="session", autouse=True)
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A token of the tests' own: the user's ~/.ray is left alone."""
    file = tmp_path_factory.mktemp("ray") / "token"
    file.write_text("0" * 64)
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(file)
    yield
    del os.environ["RAY_AUTH_TOKEN_PATH"]

"""One local Ray cluster for all tests of the stages, and a small log to feed them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.schema import Config
from tests.pipelines.planted import configure

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two CPUs, and a token of the test's own: the user's ~/.ray is left alone."""
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text("0" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        # passes over users are on Ray, where tests do not ask for the other way: these are small
        patch.setattr("pipelines.models.over_users.HERE_PAIRS", 0)
        import ray

        from pipelines.cluster.session import ray_session
        from pipelines.config.schema import RayConfig

        with ray_session(RayConfig(num_cpus=2)):
            yield
        assert not ray.is_initialized(), "a session ends what it started"


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Config]:
    """Make a configuration: ``configured(path, min_item_events=2, ...)``; `data` sections by keyword."""

    def make(path: str | Path, events: dict[str, Any] | None = None, **data: Any) -> Config:
        source = {"path": str(path), **(events or {})}
        return Config.model_validate(
            {"name": "tiny", "home": str(tmp_path / "home"), "data": {"events": source, **data}}
        )

    return make


@pytest.fixture(scope="session")
def planted_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated log of 200 users and 150 items in 8 clusters."""
    from pipelines.preprocess.synthetic import generate

    folder = tmp_path_factory.mktemp("log")
    generate(folder, events=6000, users=200, items=150, clusters=8)
    return folder


@pytest.fixture(scope="session")
def planted_home(tmp_path_factory: pytest.TempPathFactory, planted_log: Path, ray_cluster: None) -> Path:
    """A home folder with the dataset of that log."""
    from pipelines.preprocess.preprocess import preprocess

    home = tmp_path_factory.mktemp("home")
    preprocess(configure(home, planted_log))
    return home


@pytest.fixture(scope="session")
def config(planted_home: Path, planted_log: Path) -> Config:
    """Settings over that dataset; a module that wants others has a fixture of this name itself."""
    return configure(planted_home, planted_log)

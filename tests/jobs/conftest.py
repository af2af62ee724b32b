"""A head to talk to, and a configuration that a cluster could run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.fake_head import FakeHead, serving

SHARED = """\
name: tiny
home: s3://bucket/home
data:
  events: {path: s3://bucket/log}
"""


@pytest.fixture
def head() -> Iterator[FakeHead]:
    with serving(FakeHead()) as head:
        yield head


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ``conf/tiny.yaml``, all of whose places are shared."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/tiny.yaml").write_text(SHARED)
    return tmp_path

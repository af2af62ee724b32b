"""A real S3 server on this machine (moto), for the tests that need one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from werkzeug.serving import make_server

from tests.signed_s3 import signed_s3

KEY, SECRET = "test-access-key", "test-secret-key"
AWS_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE",
)  # fmt: skip


@contextmanager
def s3_server(bucket: str) -> Iterator[tuple[str, Any]]:
    """The address of a server with an empty bucket, and a file system of it."""
    server = make_server("127.0.0.1", 0, signed_s3(KEY), threaded=True)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    store = pafs.S3FileSystem(
        access_key=KEY, secret_key=SECRET, region="eu-west-1", endpoint_override=address, allow_bucket_creation=True
    )
    store.create_dir(bucket)
    yield address, store
    server.shutdown()
    thread.join()


def use_s3(monkeypatch: pytest.MonkeyPatch, endpoint: str, home: Path) -> None:
    """Credentials in the environment, and nobody's ~/.aws."""
    for name in AWS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)

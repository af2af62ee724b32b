"""A real S3 server on this machine (moto), for the tests that need one."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEY, SECRET = "test-access-key", "test-secret-key"
AWS_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE",
)  # fmt: skip


def signed_only(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """As S3 does and moto does not by itself: requests that another key signs, or nobody, are refused."""

    def gate(request: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if f"Credential={KEY}/" in request.get("HTTP_AUTHORIZATION", ""):
            return app(request, respond)
        respond("403 Forbidden", [("Content-Type", "application/xml")])
        return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]

    return gate


@contextmanager
def s3_server(bucket: str) -> Iterator[tuple[str, Any]]:
    """The address of a server with an empty bucket, and a file system of it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, signed_only(app), threaded=True)  # type: ignore[arg-type]
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

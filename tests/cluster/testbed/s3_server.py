"""An S3 server for the bed: moto's, in memory, for one bucket; ``python s3_server.py HOST PORT``.

As S3 does and moto does not by itself, it refuses requests that another key signs, or nobody: a process of the cluster
that lacks the credentials is found out. The key is AWS_ACCESS_KEY_ID of its environment.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def signed_only(app: Callable[..., Iterable[bytes]], key: str) -> Callable[..., Iterable[bytes]]:
    """The application behind a check of who signed."""

    def gate(request: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if f"Credential={key}/" in request.get("HTTP_AUTHORIZATION", ""):
            return app(request, respond)
        respond("403 Forbidden", [("Content-Type", "application/xml")])
        return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]

    return gate


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = signed_only(DomainDispatcherApplication(create_backend_app), os.environ["AWS_ACCESS_KEY_ID"])
    run_simple(sys.argv[1], int(sys.argv[2]), application, threaded=True)  # type: ignore[arg-type]

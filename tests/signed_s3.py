"""S3 in memory (moto) that wants credentials: a WSGI application, or a server, ``python signed_s3.py HOST PORT``.

As S3 does and moto does not by itself, it refuses requests that another key signs, or nobody: a process that lacks the
credentials is found out. The server's key is AWS_ACCESS_KEY_ID of its environment.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def signed_s3(key: str) -> Callable[..., Iterable[bytes]]:
    """The application, for requests that `key` signs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto: Callable[..., Iterable[bytes]] = DomainDispatcherApplication(create_backend_app)

    def application(request: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if f"Credential={key}/" in request.get("HTTP_AUTHORIZATION", ""):
            return moto(request, respond)
        respond("403 Forbidden", [("Content-Type", "application/xml")])
        return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]

    return application


if __name__ == "__main__":
    run_simple(sys.argv[1], int(sys.argv[2]), signed_s3(os.environ["AWS_ACCESS_KEY_ID"]), threaded=True)

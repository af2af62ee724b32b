"""Which file system a path lies on: local, inside an installed package, or whatever pyarrow.fs opens by URI. No Ray."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pyarrow as pa
import pyarrow.fs as pafs

from pipelines.config.redact import redact
from pipelines.errors import UserError, first_line

TIMEOUT_S = 15  # to connect to S3, and to wait for its next byte; three attempts
GS_RETRY_S = 20  # Google's library goes on trying for 15 minutes otherwise
_S3_URI = re.compile(r"s3://(?:([^/@]*)@)?([^?]*(?:\?(?![a-z_]+=)[^?]*)*)(?:\?(.*))?")  # a ? may be a wildcard as well
_S3_PARAMETERS = ("region", "scheme", "endpoint_override")
_NOISE = re.compile(r" \(Request ID: .*| error_info=.*|; Details: .*", re.DOTALL)
_HINTS = {
    "s3": "; are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION set and right, and AWS_ENDPOINT_URL "
    "if the server is not Amazon's?",
    "gs": "; is GOOGLE_APPLICATION_CREDENTIALS set and right? (gs://anonymous@bucket for a public one)",
}  # fmt: skip


def open_filesystem(path: str) -> tuple[Any, str]:
    """Open the pyarrow file system of `path`, and say where on it the path leads.

    The object can be sent to another process; S3 credentials of this process's environment go with it, those of
    ~/.aws or of the machine's role are looked up anew there.

    Raises
    ------
    UserError
        For a package that is not installed, or a URI that pyarrow.fs does not open.
    """
    if path.startswith("package://"):
        return pafs.LocalFileSystem(), _inside_package(path)
    if "://" not in path:
        return pafs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    try:
        if path.startswith("s3://"):
            return _open_s3(path)
        if path.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in path:
            path = f"{path}{'&' if '?' in path else '?'}retry_limit_seconds={GS_RETRY_S}"
        filesystem, where = pafs.FileSystem.from_uri(path)
        return filesystem, where
    except (pa.ArrowException, OSError, ValueError) as error:
        way_out = hint(path) if isinstance(error, OSError) else ""
        raise UserError(f"{redact(path)}: not a path or URI that pyarrow.fs opens: {reason(error)}{way_out}") from None


def reason(error: BaseException) -> str:
    """Return the first line of an error, without what only the server's operator can use."""
    return _NOISE.sub("", redact(first_line(error)))


def hint(path: str) -> str:
    """Name the way out when a store refuses or does not answer: the environment variables to look at."""
    return _HINTS.get(path.partition("://")[0].replace("gcs", "gs"), "")


def _inside_package(path: str) -> str:
    package, _, inside = path.removeprefix("package://").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{path}: the package {package} is not installed; run: pip install {package}")
    return str(Path(spec.submodule_search_locations[0], inside))


def _open_s3(uri: str) -> tuple[Any, str]:
    """Open as FileSystem.from_uri, but with timeouts, with credentials that travel, and the key taken as it stands."""
    found = _S3_URI.fullmatch(uri)
    if found is None or not found[2].strip("/"):
        raise ValueError("must be s3://bucket/key")
    if ":" in found[2].partition("/")[0]:  # what follows may be a secret with a raw slash
        raise ValueError("credentials in it must be %-encoded; better put them into the environment")
    login, where, query = found[1], found[2], dict(parse_qsl(found[3] or ""))
    if unknown := [name for name in query if name not in _S3_PARAMETERS]:
        raise ValueError(f"unknown parameter {unknown[0]}, allowed: {', '.join(_S3_PARAMETERS)}")
    key, secret, token = _s3_credentials(login)
    endpoint = query.get("endpoint_override") or _first_set("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region = query.get("region") or _first_set("AWS_REGION", "AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        region = pafs.resolve_s3_region(where.partition("/")[0])
    filesystem = pafs.S3FileSystem(
        access_key=key,
        secret_key=secret,
        session_token=token,
        region=region or "us-east-1",
        scheme=query.get("scheme"),
        endpoint_override=endpoint,
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
    )
    return filesystem, where.rstrip("/")


def _s3_credentials(login: str | None) -> tuple[str | None, str | None, str | None]:
    """Key, secret and session token of the URI, else of the environment; all None: the AWS library looks elsewhere."""
    if login:
        key, _, secret = login.partition(":")
        return unquote(key), unquote(secret), None
    found = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return (*found, os.environ.get("AWS_SESSION_TOKEN")) if all(found) else (None, None, None)


def _first_set(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)

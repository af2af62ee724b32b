"""`mind serve`: starts Ray and Ray Serve, or joins them, and stays until it is told to stop; then nothing remains.

The model is opened here first: a folder that cannot be served is a line of this command, not an actor's death.
"""

from __future__ import annotations

import io
import logging
import math
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation

from pipelines.cluster.address import cluster_address
from pipelines.cluster.session import ray_session
from pipelines.cluster.template import OF_TRAINING
from pipelines.config.schema import Config
from pipelines.endpoint.follow import find_source
from pipelines.endpoint.replica import NAME, application
from pipelines.errors import UserError, user_error
from pipelines.lists.rules import rules_of
from pipelines.models.artifact import load_model
from pipelines.progress import console, output

# Ray Serve kills a proxy that is not ready 5 s after it was asked, and begins anew: on a busy machine, without end
READY_CHECK = "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"
LOOK_S = 5.0  # between two looks at whether it still runs
SETTLE_S = 0.5  # Ray prints the end of Serve's controller, which it takes for a failure, a moment later
STOPPED = (signal.SIGINT, signal.SIGTERM)


def serve_model(config: Config, model: str | None = None) -> None:
    """Serve a model over HTTP until SIGINT or SIGTERM.

    Parameters
    ----------
    model : as `find_source` takes it.

    Raises
    ------
    UserError
        Without a model, with one that cannot be loaded, or if the port is taken.
    """
    source = find_source(config, model)
    for line in rules_of(config, load_model(source.folder).columns()).told:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    joined = cluster_address(config.ray) is not None
    if not joined:
        require_free(config.serve.host, config.serve.port)
    os.environ.setdefault(READY_CHECK, "60")
    workers = math.ceil((config.serve.max_replicas or config.serve.replicas) * config.serve.cpus)
    with (
        ray_session(config.ray, workers=workers, home=config.home_path, standing=False, preload=OF_TRAINING),
        stop() as asked,
    ):
        _start(config, asked)
        try:
            with _quiet():
                serve.run(application(config, source), name=NAME, route_prefix="/")
            follows = f"; follows the alias {config.serve.alias}" if source.follows else ""
            where = f"http://{config.serve.host}:{config.serve.port}"
            output.print(f"Serving {source}{follows}", soft_wrap=True, highlight=False)
            output.print(f"{where}/recommend, its page: {where}/docs; Ctrl-C stops it", soft_wrap=True, highlight=False)
            _wait(asked)
        except Exception as error:
            mistake = user_error(error)
            raise mistake or UserError(f"mind serve: {' '.join(str(error).split())[:500]}") from error
        finally:
            console.print("Stopping ...")
            with _quiet(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
                serve.delete(NAME) if joined else serve.shutdown()
                time.sleep(SETTLE_S)
    console.print("Stopped")


@contextmanager
def stop() -> Iterator[threading.Event]:
    """Yield an event that is set by the first SIGINT or SIGTERM; the second has its usual effect."""
    asked = threading.Event()
    before = {number: signal.getsignal(number) for number in STOPPED}

    def told(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in STOPPED:
        signal.signal(number, told)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def require_free(host: str, port: int) -> None:
    """See that nobody listens there: Ray Serve's proxy would not start, again and again.

    Raises
    ------
    UserError
        If somebody does, or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise UserError(f"serve.host={host} and serve.port={port}: cannot be listened at ({error.strerror}); "
                            "choose another with --port or --set serve.host=...") from None  # fmt: skip


def _start(config: Config, asked: threading.Event) -> None:
    """Start Ray Serve, where it does not run yet.

    Raises
    ------
    UserError
        If its proxy is not there within Ray's minute.
    """
    options = HTTPOptions(host=config.serve.host, port=config.serve.port, request_timeout_s=config.serve.timeout_s)
    try:
        with _quiet():
            serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=options)
    except (RayError, TimeoutError) as error:
        raise UserError(
            f"Ray Serve's proxy did not start ({type(error).__name__}): it has a minute, which a machine that is busy "
            "or short of memory does not keep. Run the command again; Ray's logs are in /tmp/ray/session_latest/logs"
        ) from None


def _wait(asked: threading.Event) -> None:
    """Wait until it is told to stop; a UserError if Ray Serve ends by itself."""
    while not asked.wait(LOOK_S):
        status = serve.status().applications.get(NAME)
        if status is None or status.status in ("DEPLOY_FAILED", "NOT_STARTED"):
            raise UserError(f"mind serve: the application ended ({'gone' if status is None else status.message})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Serve's progress to its logs: what went wrong is raised."""
    talkers = [logging.getLogger(name) for name in ("ray.serve", "ray.serve.api")]
    before = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for talker, level in zip(talkers, before, strict=True):
            talker.setLevel(level)

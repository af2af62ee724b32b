"""The one place that starts or joins Ray, and how its errors and its noise reach the user."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import ray
import ray.exceptions
from ray._private.authentication.authentication_token_setup import enable_token_auth_by_default

from pipelines.cluster.address import cluster_address, local_cpus
from pipelines.cluster.environment import set_up_local
from pipelines.cluster.local_start import start_here
from pipelines.cluster.nodes import require_reach
from pipelines.cluster.standing import Standing, standing_to_use
from pipelines.cluster.template import OF_DATA
from pipelines.config.schema import RayConfig
from pipelines.errors import UserError, first_line, user_error
from pipelines.progress import console
from pipelines.stopping import heed_sigterm

CONNECT_TIMEOUT_S = 10
RETRY_NOTE = "\nFailed to "  # Ray Data puts advice on its own settings behind what went wrong


@contextmanager
def ray_session(
    config: RayConfig,
    workers: int = 1,
    dashboard: bool = False,
    *,
    home: Path | None = None,
    inputs: Sequence[str] = (),
    standing: bool = True,
    preload: Sequence[str] = OF_DATA,
) -> Iterator[None]:
    """Have Ray available inside the block.

    Joins the session of this process if there is one, else the cluster at `config.address` or RAY_ADDRESS, else the
    Ray of `mind up` in `home`, else starts a local one. Only what was started here is shut down.

    Parameters
    ----------
    config
        Address, and CPUs of a local cluster.
    workers
        Training workers that must fit beside one coordinating task.
    dashboard
        Start the dashboard of a local cluster (Ray Tune needs it: it cleans up after pruned trials).
    home, inputs
        What every node of a joined cluster must reach, see `require_reach`.
    standing
        Use the Ray of `mind up` if it is free; it has no dashboard.
    preload
        Modules that the workers of a local cluster have when they start.

    Raises
    ------
    UserError
        If the cluster at the address does not answer, or one of its nodes does not reach the files.
    """
    if ray.is_initialized():
        _set_up_data()
        yield
        return
    if address := cluster_address(config):
        try:
            _require_listener(address)
            ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
        except (OSError, ray.exceptions.RayError, ValueError, RuntimeError) as error:
            raise UserError(
                f"ray.address={address}: cannot join the cluster: {first_line(error)}; is it up, and if it asks for a "
                "token, are RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) set?"
            ) from None
        with _joined():
            if home is not None:
                require_reach(home, inputs)
            yield
    else:
        cpus, kept = local_cpus(config, workers), home if standing and not dashboard else None
        with ExitStack() as held, standing_to_use(kept, cpus, exactly=config.num_cpus is not None) as found:
            if found is None or not _join_standing(found):
                set_up_local()
                held.callback(
                    start_here(
                        preload,
                        num_cpus=cpus,
                        include_dashboard=dashboard,
                        logging_level=logging.WARNING,
                        log_to_driver=False,
                    ).end
                )
            with _joined():
                yield


def _join_standing(found: Standing) -> bool:
    """Join the Ray of `mind up`; False, and a line, if it does not let us."""
    if found.token is not None:
        os.environ["RAY_AUTH_TOKEN"] = found.token
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    try:
        enable_token_auth_by_default()  # as the Ray has that was started here; who joins one must say so
        _require_listener(found.address)
        ray.init(address=found.address, logging_level=logging.WARNING, log_to_driver=False)
        return True
    except Exception as error:
        with suppress(Exception):
            ray.shutdown()
        reason = first_line(error)
        console.print(f"The Ray of mind up cannot be joined ({reason}); this command starts its own", soft_wrap=True)
        return False


@contextmanager
def _joined() -> Iterator[None]:
    """Set up this process as a driver of the Ray that it has joined; leave it, and end what was started, at the end."""
    heed_sigterm()  # Ray's core has put a handler below Python's that prints its stack and aborts
    _set_up_data()
    try:
        yield
    except BaseException as error:
        # A pass of Ray Data goes on in a thread until nobody holds it, and ends the process if Ray is gone before it
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        raise
    finally:
        ray.shutdown()


@contextmanager
def interruptible() -> Iterator[None]:
    """Make Ctrl-C inside a KeyboardInterrupt: Ray Train would exit with code 0, and its handler would stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


def _require_listener(address: str) -> None:
    """Fail at once where nobody listens: Ray itself goes on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()


def _set_up_data() -> None:
    import ray.data  # half a second, beside Ray's start by then

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # its listing starts a worker of its own in every execution: 3 to 7 s where the other reader takes .3 s
    context.use_datasource_v2 = False
    context.verbose_stats_logs = True  # its own scheduling loop is part of what a pass costs
    context.raise_original_map_exception = True  # else a UserError arrives as text within an error of Ray Data's own
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that its bars are off
    # it warns that it likes `compute` more than `concurrency`
    logging.getLogger("ray.data._internal.util").setLevel(logging.ERROR)
    for raised_as_well in ("ray.data.exceptions", "ray.data._internal.execution.streaming_executor_state"):
        logging.getLogger(raised_as_well).setLevel(logging.CRITICAL)


@contextmanager
def core_lines_hidden() -> Iterator[None]:
    """Keep what Ray's core itself prints off the terminal; it stands in the session's python-core-driver-*.log as well.

    It reports each actor of Ray Data as an error (ray-project/ray#53727), by its C++ logger, which is made quiet by
    RAY_BACKEND_LOG_LEVEL alone, for the whole cluster. Python's own stderr goes on as it was.
    """
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w", buffering=1) as terminal, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        before = sys.stderr
        sys.stderr = terminal if before is sys.__stderr__ else before
        try:
            yield
        finally:
            sys.stderr = before
            os.dup2(terminal.fileno(), 2)


def raise_user_error(error: BaseException) -> None:
    """Raise the UserError that a remote function raised, if that is what lies under Ray's wrapping."""
    if (mistake := user_error(error)) is not None:
        raise UserError(str(mistake).partition(RETRY_NOTE)[0]) from None

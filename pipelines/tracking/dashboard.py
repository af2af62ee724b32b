"""``mind ui``: the MLflow server on this machine, over the store of a home folder."""

from __future__ import annotations

import os
import socket
import sys
from importlib.metadata import entry_points
from pathlib import Path

from pipelines.config.redact import redact
from pipelines.errors import UserError
from pipelines.tracking.store import artifact_root, database_of, is_file, is_server

HOST = "127.0.0.1"
OLD_WSGI = "ignore:starlette.middleware.wsgi is deprecated"
APP = "mind"  # pipelines.tracking.dashboard_pages
PAGE = "/#/experiments?workflowType=machine_learning"  # else MLflow opens its pages of agents and prompts


def serve(uri: str, home: Path, port: int) -> None:
    """Become the MLflow server of the store at `uri`; return only if the runs are on a server already.

    Raises
    ------
    UserError
        Nothing has been recorded there, or the port is taken.
    """
    if is_server(uri):
        print(f"The runs are on a server: {redact(uri)}")
        return
    database = database_of(uri)
    if is_file(uri) and not database.exists():
        raise UserError(f"{database}: no runs yet; `mind train CONF` records the first, --home names another folder")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise UserError(f"port {port} of {HOST} is taken: end what runs there or name another, --port N") from None

    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: `ps` would show a database's password
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifact_root(home).as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # six processes for jobs that mind does not have
        # of MLflow's own import, which nobody here can mend; a user's filters come later and win
        "PYTHONWARNINGS": ",".join(filter(None, [OLD_WSGI, os.environ.get("PYTHONWARNINGS")])),
        # the server starts uvicorn by its name
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    print(f"MLflow dashboard of {redact(uri)}: http://{HOST}:{port}{PAGE} in a few seconds; Ctrl-C ends it", flush=True)
    arguments = ["-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    if entry_points(group="mlflow.app", name=APP):  # else mind is on the path and not installed
        arguments += ["--app-name", APP]
    # exec, not a child: Ctrl-C and kill reach the server itself and leave nothing behind
    os.execve(sys.executable, [sys.executable, *arguments], environment)

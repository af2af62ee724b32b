"""The bed's hosts that are not Ray's: PostgreSQL, an S3 server, and MLflow on both of them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import psycopg
import pyarrow.fs as pafs

from tests.cluster.testbed.nodes import REPOSITORY, wait_for
from tests.cluster.testbed.state import BedError, State

BUCKET = "mind"
REGION = "eu-west-1"
PORTS = {"postgres": 5432, "s3": 9000, "mlflow": 5000}
START_TIMEOUT_S = 120  # MLflow's takes 10 s on a quiet machine
DATABASE_OWNER = "postgres"  # of the database, and of its processes where this one is root: PostgreSQL refuses root


@dataclass(frozen=True)
class Service:
    """What a node of this name runs, once the named service answers; `answers` is true when it can be used itself."""

    name: str
    after: str | None
    command: Callable[[State], list[str]]
    environment: Callable[[State], Mapping[str, str]]
    answers: Callable[[State], bool]


def postgres_programs() -> Path | None:
    """The folder of initdb and postgres: on PATH, or the newest of Debian's packages."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    packaged = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(packaged, key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0, default=None)
    return newest.parent if newest else None


def storage_environment(state: State) -> dict[str, str]:
    """What a client of the S3 server needs: boto3 and Arrow read the same variables."""
    return {
        "AWS_ACCESS_KEY_ID": state.secrets["key"],
        "AWS_SECRET_ACCESS_KEY": state.secrets["secret"],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": state.url("s3"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def storage(state: State) -> pafs.S3FileSystem:
    """The S3 server as seen from this machine."""
    return pafs.S3FileSystem(
        access_key=state.secrets["key"],
        secret_key=state.secrets["secret"],
        region=REGION,
        endpoint_override=state.url("s3"),
        allow_bucket_creation=True,
    )


def database_uri(state: State, dialect: str = "postgresql") -> str:
    """With the password: not for an argument or a log."""
    place = f"{state.nodes['postgres'].ip}:{state.ports['postgres']}"
    return f"{dialect}://{DATABASE_OWNER}:{state.secrets['password']}@{place}/postgres"


def http_status(url: str, token: str | None = None) -> int:
    """Return the status of a GET; 0: nobody answers."""
    return http_get(url, token)[0]


def http_get(url: str, token: str | None = None) -> tuple[int, bytes]:
    """Status and body of a GET past any proxy, with a token if there is one; (0, b""): nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with build_opener(ProxyHandler({})).open(Request(url, headers=headers), timeout=5) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()
    except (URLError, OSError):
        return 0, b""


def _postgres_command(state: State) -> list[str]:
    """A new database without fsync: it dies with the bed. The password comes by the environment."""
    programs = postgres_programs()
    if programs is None:
        raise BedError("PostgreSQL is not installed: apt-get install postgresql")
    node = state.nodes["postgres"]
    initdb = [str(programs / "initdb"), "-D", "db", "-U", DATABASE_OWNER, "-A", "scram-sha-256", "--no-sync"]
    options = {
        "listen_addresses": node.ip,
        "port": str(state.ports["postgres"]),
        "unix_socket_directories": "",
        "fsync": "off",
    }
    postgres = [str(programs / "postgres"), "-D", "db", *(f"--{name}={value}" for name, value in options.items())]
    script = "; ".join(
        [
            "set -eu; umask 077; mkdir pg; cd pg",
            'printf %s "$POSTGRES_PASSWORD" >password',
            "unset POSTGRES_PASSWORD",
            f"{shlex.join(initdb)} --pwfile=password",
            "rm password",
            "echo 'host all all samenet scram-sha-256' >>db/pg_hba.conf",
            f"exec {shlex.join(postgres)}",
        ]
    )
    become = ["setpriv", f"--reuid={DATABASE_OWNER}", f"--regid={DATABASE_OWNER}", "--init-groups"]
    return [*(become if os.geteuid() == 0 else []), "sh", "-c", script]


def _postgres_answers(state: State) -> bool:
    try:
        psycopg.connect(database_uri(state), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _s3_command(state: State) -> list[str]:
    return [sys.executable, str(REPOSITORY / "tests/signed_s3.py"), state.nodes["s3"].ip, str(state.ports["s3"])]


def _mlflow_command(state: State) -> list[str]:
    place = ["--host", state.nodes["mlflow"].ip, "--port", str(state.ports["mlflow"]), "--workers", "1"]
    return [f"{sys.prefix}/bin/mlflow", "server", *place, "--artifacts-destination", f"s3://{BUCKET}/mlflow"]


def _mlflow_environment(state: State) -> dict[str, str]:
    return storage_environment(state) | {
        "MLFLOW_BACKEND_STORE_URI": database_uri(state, "postgresql+psycopg"),
        "MLFLOW_SERVER_ALLOWED_HOSTS": state.url("mlflow").removeprefix("http://"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # six more processes that nothing here uses
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


SERVICES = (
    Service(
        "postgres",
        None,
        _postgres_command,
        lambda state: {"POSTGRES_PASSWORD": state.secrets["password"]},
        _postgres_answers,
    ),
    Service("s3", None, _s3_command, storage_environment, lambda state: http_status(state.url("s3")) != 0),
    Service(
        "mlflow",
        "postgres",
        _mlflow_command,
        _mlflow_environment,
        lambda state: http_status(state.url("mlflow") + "/health") == 200,
    ),
)


def await_service(state: State, name: str) -> None:
    """Return when it can be used.

    Raises
    ------
    BedError
        With the end of its log, if it ends or does not answer within START_TIMEOUT_S.
    """
    service = next(each for each in SERVICES if each.name == name)
    wait_for(lambda: service.answers(state), f"{name} does not answer", START_TIMEOUT_S, state.nodes[name])

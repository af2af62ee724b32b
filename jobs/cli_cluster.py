"""``mind submit`` and ``mind jobs``: the stages on a cluster, through the job server of its head.

Everything heavy is imported inside a command, as in :mod:`jobs.cli`.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from jobs.result_command import ResultApp, asked_for_json
from pipelines.errors import UserError

if TYPE_CHECKING:
    from jobs.client import Cluster, Job

STOP_WAIT_S = 60.0  # Ray kills after 3 s what does not end by itself
TABLE_WIDTH = 1000
UNSHOWN = ("mind_attempt", "job_submission_id", "job_name")  # metadata; Ray's own two repeat the id

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Dashboard of the cluster's head: http://HEAD:8265. Without it: RAY_API_SERVER_ADDRESS, then RAY_ADDRESS.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Of the job, or how it begins.")]

jobs_app = ResultApp(no_args_is_help=True, help="List, look at, follow and stop the jobs of a cluster.")


def add_cluster_commands(app: typer.Typer) -> None:
    """Give `app`, which has the stages, these commands as well."""
    app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(submit)
    app.add_typer(jobs_app, name="jobs")


def submit(
    context: typer.Context,
    stage: Annotated[
        str, typer.Argument(metavar="STAGE CONF", help="As in mind STAGE CONF, with the stage's options.")
    ],
    address: Address = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end of the job.")] = False,
    submission_id: Annotated[
        str | None, typer.Option("--submission-id", metavar="ID", help="Without it: mind-STAGE-NAME-TIME-XXXX.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME[=VALUE]", help="Variable of the job. May be repeated.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="To find it by. May be repeated.")
    ] = None,
    num_cpus: Annotated[
        float, typer.Option("--entrypoint-num-cpus", min=0, help="Of the job's driver; 0: it runs on the head.")
    ] = 0.1,
    num_gpus: Annotated[float, typer.Option("--entrypoint-num-gpus", min=0, help="Of the driver.")] = 0.0,
    memory: Annotated[int, typer.Option("--entrypoint-memory", min=0, metavar="BYTES", help="Of the driver.")] = 0,
    resources: Annotated[
        str | None, typer.Option("--entrypoint-resources", metavar="JSON", help="Of the driver: '{\"name\": 1}'.")
    ] = None,
) -> Any:
    """Run a stage on a cluster: send the code and CONF, follow the log, end as the job ends."""
    from jobs.client import Patience
    from jobs.package import require_small, write_package
    from jobs.submit import STAGES, Asked, prepare

    root: Any = context.find_root().command
    if stage not in STAGES:
        raise UserError(f"submit {stage}: must begin with a stage, one of {', '.join(STAGES)}")
    options = root.get_command(context, stage).make_context(f"mind {stage}", list(context.args)).params
    asked = Asked(env or (), metadata or (), submission_id, num_cpus, num_gpus, memory, _amounts(resources))
    submission, files = prepare(stage, context.args, options, asked)
    require_small(files)
    cluster = _cluster(address)
    with tempfile.TemporaryDirectory(prefix="mind-submit-") as folder:
        write_package(files, Path(folder))
        cluster.submit(submission, folder, Patience(_say))
    _say(f"submitted {submission.id}")
    if detach:
        typer.echo(submission.id)
        _say(f"follow it: {_command(cluster, 'logs', submission.id, '--follow')}")
        _say(f"stop it: {_command(cluster, 'stop', submission.id)}")
        return cluster.find(submission.id) if asked_for_json() else None
    return _follow(cluster, submission.id)


@jobs_app.command("list")
def list_jobs(
    address: Address = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that mind did not submit, too.")] = False,
) -> Any:
    """List the jobs, newest first."""
    from rich.console import Console
    from rich.table import Table

    from jobs.follow import elapsed

    table = Table(box=None, pad_edge=False)
    for column in ("id", "stage", "status", "started", "duration"):
        table.add_column(column, no_wrap=True)
    table.add_column("entrypoint", no_wrap=True)
    jobs = [job for job in _cluster(address).jobs() if everything or job.stage is not None]
    for job in jobs:
        table.add_row(job.id, job.stage or "-", job.status, _time(job.started), elapsed(job.seconds), job.entrypoint)
    if jobs:
        Console(width=TABLE_WIDTH).print(table)  # wider than the terminal: an id must be there to copy, all of it
    else:
        typer.echo("no jobs" + ("" if everything else "; those that mind did not submit: --all"))
    return jobs


@jobs_app.command()
def status(job_id: JobId, address: Address = None) -> Any:
    """Show what is known of a job."""
    from jobs.follow import elapsed

    job = _cluster(address).find(job_id)
    lines = {
        "id": job.id,
        "status": job.status,
        "started": _time(job.started),
        "duration": elapsed(job.seconds),
        "entrypoint": job.entrypoint,
        **{key.removeprefix("mind_"): value for key, value in sorted(job.metadata.items()) if key not in UNSHOWN},
    }
    if job.status not in ("RUNNING", "SUCCEEDED"):
        lines["reason"] = job.reason
    if job.exit_code is not None:
        lines["exit code"] = str(job.exit_code)
    for name, value in lines.items():
        typer.echo(f"{name:<11} {value}")
    return job


@jobs_app.command(cls=TyperCommand)
def logs(
    job_id: JobId,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends, with its exit code.")] = False,
) -> None:
    """Print what a job has printed."""
    cluster = _cluster(address)
    job = cluster.find(job_id)
    if follow:
        _follow(cluster, job.id)
    else:
        typer.echo(cluster.logs(job.id), nl=False)


@jobs_app.command()
def stop(
    job_id: JobId,
    address: Address = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ask, and do not wait until it has ended.")] = False,
) -> Any:
    """Stop a job; the same mind submit goes on where it was."""
    from jobs.client import Patience
    from jobs.follow import await_end, verdict

    cluster = _cluster(address)
    job = cluster.find(job_id)
    if job.is_over:
        _say(f"{job.id} is over: {job.status}")
        return job
    patience = Patience(_say)
    patience.call(cluster.stop, job.id)
    if no_wait:
        _say(f"asked {job.id} to stop")
        return job
    job = await_end(cluster, job.id, patience, STOP_WAIT_S)
    if not job.is_over:
        raise UserError(f"{job.id}: still {job.status} after {STOP_WAIT_S:.0f} s; see: "
                        f"{_command(cluster, 'status', job.id)}")  # fmt: skip
    _say(verdict(job))
    return job


def _cluster(given: str | None) -> Cluster:
    """Connect to the cluster that a command means."""
    address = given or os.environ.get("RAY_API_SERVER_ADDRESS")
    ray_address = os.environ.get("RAY_ADDRESS", "")
    if address is None and ray_address.startswith(("http://", "https://")):  # else it is for joining, not for jobs
        address = ray_address
    if address is None:
        raise UserError("no cluster given: --address http://HEAD:8265, or RAY_API_SERVER_ADDRESS in the environment")
    from pipelines.config.redact import redact

    if not address.startswith(("http://", "https://")):
        raise UserError(f"--address {redact(address)}: must be the dashboard of the cluster's head, e.g. "
                        "http://HEAD:8265")  # fmt: skip
    if redact(address) != address:
        raise UserError(f"--address {redact(address)}: give the token by RAY_AUTH_TOKEN_PATH (a file), not in the URL")
    from jobs.client import Cluster

    return Cluster(address.rstrip("/"))


def _follow(cluster: Cluster, job_id: str) -> Job:
    """Print the log until the job ends, then end likewise."""
    from jobs.client import LostConnection, Patience
    from jobs.follow import UNKNOWN, exit_code, follow, verdict

    try:
        job = follow(cluster, job_id, _write, _say, Patience(_say))
    except KeyboardInterrupt:
        _say(f"{job_id} goes on; follow it: {_command(cluster, 'logs', job_id, '--follow')}; stop it: "
             f"{_command(cluster, 'stop', job_id)}")  # fmt: skip
        raise typer.Exit(130) from None
    except LostConnection as error:
        _fail(f"{error}; {job_id} may go on", UNKNOWN)
    if exit_code(job):
        _fail(verdict(job), exit_code(job))
    _say(verdict(job))
    return job


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"mind: error: {message}", err=True)
    raise typer.Exit(code)


def _say(message: str) -> None:
    typer.echo(f"mind: {message}", err=True)


def _write(text: str) -> None:
    typer.echo(text, nl=False)


def _command(cluster: Cluster, name: str, *words: str) -> str:
    return shlex.join(["mind", "jobs", name, *words, "--address", cluster.address])


def _amounts(text: str | None) -> dict[str, float]:
    """Resources by name, of a JSON object."""
    try:
        amounts = json.loads(text or "{}")
        return {str(name): float(amount) for name, amount in amounts.items()}
    except (ValueError, AttributeError, TypeError):
        raise UserError(
            f"--entrypoint-resources {text}: must be JSON with amounts by name, e.g. '{{\"name\": 1}}'"
        ) from None


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}" if seconds else "-"

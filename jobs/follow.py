"""Follow a job to its end: print its log as it grows, over lost connections; then say how it ended, and with what code.

A log is always sent from its beginning. After a break as many characters are passed over as have been printed, so that
nothing is lost or printed twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from jobs.client import Cluster, Job, LostConnection, Patience

STOPPED = 3  # exit codes beside those of the stages (1 a crash, 2 a user's mistake, 130 interrupted)
UNKNOWN = 4  # the connection was lost and is not back: the job may run on
POLL_S = 1.0


def follow(
    cluster: Cluster,
    job_id: str,
    write: Callable[[str], object],
    say: Callable[[str], None],
    patience: Patience,
    sleep: Callable[[float], None] = time.sleep,
) -> Job:
    """Print the job's log until it has ended.

    Parameters
    ----------
    write : takes the log, in pieces.
    say : takes remarks, a line each.

    Returns
    -------
    Job
        As it ended.

    Raises
    ------
    LostConnection
        If the head has not answered for as long as `patience` has.
    """
    printed = 0
    told = False
    while True:
        try:
            passed = 0
            for text in cluster.tail(job_id):
                if text is not None:
                    patience.answered()
                    fresh = text[max(0, printed - passed) :]
                    passed += len(text)
                    printed = max(printed, passed)
                    if fresh:
                        write(fresh)
                    continue
                job = cluster.job(job_id)  # silence: is the head still there?
                patience.answered()
                if job.is_over:
                    break
                if job.status == "PENDING" and not told:
                    told = True
                    say(f"{job_id} waits: {job.reason}")
            job = cluster.job(job_id)
            patience.answered()
            if job.is_over:
                return job
        except LostConnection as error:
            patience.wait(error)
        else:
            sleep(POLL_S)


def await_end(
    cluster: Cluster, job_id: str, patience: Patience, limit_s: float, sleep: Callable[[float], None] = time.sleep
) -> Job:
    """Wait until the job has ended, or for so long; return it as it then is."""
    deadline = time.monotonic() + limit_s
    while True:
        job: Job = patience.call(cluster.job, job_id)
        if job.is_over or time.monotonic() > deadline:
            return job
        sleep(POLL_S)


def exit_code(job: Job) -> int:
    """Return an ended job's exit code for the shell: its driver's own, where a signal N counts as 128 + N."""
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return STOPPED
    code = job.exit_code or 1
    return code if code > 0 else 128 - code


def verdict(job: Job) -> str:
    """Say in one line how it ended."""
    if job.status == "SUCCEEDED":
        return f"{job.id} succeeded after {elapsed(job.seconds)}"
    if job.status == "STOPPED":
        return f"{job.id} was stopped after {elapsed(job.seconds)}"
    return f"{job.id} failed after {elapsed(job.seconds)}: {job.reason}"


def elapsed(seconds: float) -> str:
    """Write seconds as ``1:02:03``, or ``2:03`` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

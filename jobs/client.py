"""The connection to a cluster's job server: Ray's Job API with our own words for what can go wrong.

Ray's client waits for ever on a silent head and says what happened in many kinds of exceptions; here a call ends with
an answer, with `LostConnection`, which may be tried again, or with a UserError, which may not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from pipelines.config.redact import redact
from pipelines.errors import UserError

TIMEOUT_S = (10, 120)  # to connect, and for an answer: a head without a free agent takes a minute to say so
IDLE_S = 10.0  # silence in a log after which the head is asked whether it is still there
FINAL = ("SUCCEEDED", "FAILED", "STOPPED")
STAGE, CONF, COMMIT, ATTEMPT = "mind_stage", "mind_conf", "mind_commit", "mind_attempt"  # keys of our metadata
TRIES = 5  # to send a job, where the head answers everything else
GATEWAY = (502, 503, 504)  # a proxy's own answers: the head is away for a while
REASON_LENGTH = 400

for chatty in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
    logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)  # they tell of every upload and closed connection


class LostConnection(UserError):
    """Nobody answers at the address, for now or at all."""


class UnknownJob(UserError):
    """The cluster has no job of this id."""


@dataclass(frozen=True)
class Job:
    """A job as the cluster knows it. Times are seconds since 1970; 0.0: not yet."""

    id: str
    status: str
    entrypoint: str
    message: str = ""
    started: float = 0.0
    ended: float = 0.0
    exit_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.status in FINAL

    @property
    def stage(self) -> str | None:
        """None: not submitted by ``mind submit``."""
        return self.metadata.get(STAGE)

    @property
    def seconds(self) -> float:
        return max(0.0, (self.ended or time.time()) - self.started) if self.started else 0.0

    @property
    def reason(self) -> str:
        """Why it failed, in one line: what mind said last, else what anybody did. Ray's message ends with the log's."""
        told = re.findall(r"^mind: error: (.+)$", self.message, re.MULTILINE)
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        log = next((number + 1 for number, line in enumerate(lines) if "last available logs" in line), 0)
        line = told[-1] if told else lines[-1] if len(lines) > log > 0 else lines[0] if lines else "no reason given"
        line = " ".join(redact(line).split())
        return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 3] + "..."


@dataclass(frozen=True)
class Submission:
    """What is sent. `resources` : of the entrypoint, as keyword arguments of Ray's `submit_job`."""

    id: str
    entrypoint: str
    env: Mapping[str, str]
    metadata: Mapping[str, str]
    resources: Mapping[str, Any]


class Patience:
    """How long a lost connection is sought: waits grow from 1 s to 15 s, for a bounded time since the loss."""

    def __init__(
        self,
        say: Callable[[str], None],
        limit_s: float = 300.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._limit_s, self._sleep, self._clock = say, limit_s, sleep, clock
        self._lost_at: float | None = None
        self._wait_s = 1.0

    def wait(self, error: LostConnection) -> None:
        """Sleep before another try; raise `error` where there has been no answer for too long."""
        if self._lost_at is None:
            self._lost_at = self._clock()
            self._say(f"{error}; trying again for {self._limit_s:.0f} s")
        elif self._clock() - self._lost_at >= self._limit_s:
            raise error
        self._sleep(self._wait_s)
        self._wait_s = min(2 * self._wait_s, 15.0)

    def answered(self) -> None:
        """Note that the connection is there."""
        if self._lost_at is not None:
            self._say("connected again")
        self._lost_at, self._wait_s = None, 1.0

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function until it answers, and return its result."""
        while True:
            try:
                result = function(*arguments)
            except LostConnection as error:
                self.wait(error)
            else:
                self.answered()
                return result


class _Client(JobSubmissionClient):
    """Ray's, which waits for an answer only so long."""

    def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> requests.Response:
        return super()._do_request(method, endpoint, timeout=TIMEOUT_S, **kwargs)


class Cluster:
    """The job server at an address ``http://HEAD:8265``."""

    def __init__(self, address: str) -> None:
        self.address = address
        with self._explained(), _api_server(address):
            self._client = _Client(address)

    def submit(self, submission: Submission, working_dir: str, patience: Patience) -> None:
        """Upload the package and start the job, once: a lost answer is looked up before the job is sent again.

        Raises
        ------
        UserError
            If the cluster had a job of this id already.
        """

        def send() -> None:
            with self._explained():
                self._client.submit_job(
                    entrypoint=submission.entrypoint,
                    submission_id=submission.id,
                    runtime_env={"working_dir": working_dir, "env_vars": dict(submission.env)},
                    metadata=dict(submission.metadata),
                    **submission.resources,
                )

        def is_there() -> bool:
            try:
                there = self.job(submission.id)
            except UnknownJob:
                return False
            if there.metadata.get(ATTEMPT) != submission.metadata[ATTEMPT]:
                raise UserError(f"--submission-id {submission.id}: the cluster had such a job already; leave the "
                                f"option out, or look at it: mind jobs status {submission.id}")  # fmt: skip
            return True

        for tries_left in reversed(range(TRIES)):
            try:
                send()
            except LostConnection as error:
                if not tries_left:
                    raise
                patience.wait(error)
                if patience.call(is_there):
                    return
            except UserError:
                if patience.call(is_there):  # the lost first try arrived after it was looked up
                    return
                raise
            else:
                return

    def job(self, job_id: str) -> Job:
        """Return the job of exactly this submission id.

        Raises
        ------
        UnknownJob
            If there is none.
        """
        with self._explained(job_id):
            return _job(self._client.get_job_info(job_id))

    def jobs(self) -> list[Job]:
        """List all that were submitted, by whatever means, newest first."""
        with self._explained():
            found = [_job(each) for each in self._client.list_jobs() if each.submission_id]
        return sorted(found, key=lambda job: job.started, reverse=True)

    def find(self, prefix: str) -> Job:
        """Find the job whose id is, or alone begins with, `prefix`."""
        jobs = self.jobs()
        found = [job for job in jobs if job.id == prefix] or [job for job in jobs if job.id.startswith(prefix)]
        if not found:
            raise _unknown(prefix, self.address)
        if len(found) > 1:
            names = ", ".join(job.id for job in found[:4])
            raise UserError(f"{prefix}: {len(found)} jobs begin so: {names}{', ...' if len(found) > 4 else ''}")
        return found[0]

    def logs(self, job_id: str) -> str:
        """Return all that the job has printed."""
        with self._explained(job_id):
            return str(self._client.get_job_logs(job_id))

    def tail(self, job_id: str) -> Iterator[str | None]:
        """Yield what the job prints, from its beginning to its end; None after each `IDLE_S` of silence."""
        loop = asyncio.new_event_loop()
        chunks = self._client.tail_job_logs(job_id)
        coming: asyncio.Future[str | None] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(chunks, None), loop=loop)
                done, _ = loop.run_until_complete(asyncio.wait([coming], timeout=IDLE_S))
                if not done:
                    yield None
                    continue
                with self._explained(job_id):
                    text = coming.result()
                if text is None:
                    return
                coming = None
                yield text
        finally:
            if coming is not None and not coming.done():
                coming.cancel()
                loop.run_until_complete(asyncio.wait([coming]))
            loop.run_until_complete(chunks.aclose())  # type: ignore[attr-defined]  # a generator, typed as an iterator
            loop.close()

    def stop(self, job_id: str) -> bool:
        """Ask the job to end; False if it had ended before."""
        with self._explained(job_id):
            return bool(self._client.stop_job(job_id))

    @contextmanager
    def _explained(self, job_id: str = "") -> Iterator[None]:
        """Our words for the exceptions of Ray's client."""
        address = redact(self.address)
        try:
            yield
        except AuthenticationError as error:
            raise UserError(f"{address}: {_refusal(str(error))}") from None
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                refusal = _refusal("Authentication required" if error.status == 401 else "")
                raise UserError(f"{address}: {refusal}") from None
            if error.status == 404:
                raise _unknown(job_id, address) from None
            raise LostConnection(f"{address}: answers with HTTP status {error.status}") from None
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code in GATEWAY:
                raise LostConnection(f"{address}: answers with HTTP status {error.response.status_code}") from None
            raise _no_dashboard(address) from None
        except (requests.exceptions.JSONDecodeError, KeyError):
            raise _no_dashboard(address) from None
        except (OSError, requests.RequestException, aiohttp.ClientError) as error:
            raise LostConnection(f"{address}: {_network_reason(error)}; {_ADDRESS}") from None
        except RuntimeError as error:
            raise self._failure(str(error), job_id) from None

    def _failure(self, text: str, job_id: str) -> UserError:
        """Say in our words what a RuntimeError means, whose text is all that Ray's client gives."""
        address = redact(self.address)
        if "returned 404" in text:
            return _no_dashboard(address)
        if "WebSocket" in text:
            return LostConnection(f"{address}: the connection broke off")
        code = re.search(r"status code (\d+)", text)
        if code and int(code[1]) in GATEWAY:
            return LostConnection(f"{address}: answers with HTTP status {code[1]}")
        if code and int(code[1]) == 404 and job_id:
            return _unknown(job_id, address)
        last = [line.strip(" .") for line in text.splitlines() if line.strip(" .")][-1]
        return UserError(f"{address}: refused: {last[:REASON_LENGTH]}")


_ADDRESS = "--address must be the dashboard of the cluster's head, e.g. http://HEAD:8265"
_TOKEN = "RAY_AUTH_TOKEN_PATH (a file) or RAY_AUTH_TOKEN"


def _unknown(job_id: str, address: str) -> UnknownJob:
    return UnknownJob(f"{job_id}: {address} has no such job; see: mind jobs list --all")


def _no_dashboard(address: str) -> UserError:
    return UserError(f"{address}: answers, but not as Ray's dashboard does; {_ADDRESS}")


def _refusal(text: str) -> str:
    """Say, of Ray's many lines about tokens, what to do."""
    if "couldn't find" in text:
        return f"RAY_AUTH_MODE=token, but there is no token; give the cluster's by {_TOKEN}"
    if "cannot be opened" in text:
        return "RAY_AUTH_TOKEN_PATH: no such file, or an empty one; it must hold the cluster's token"
    if "Authentication required" in text:
        return f"asks for a token; set RAY_AUTH_MODE=token and give the cluster's by {_TOKEN}"
    return f"refuses the token; give the cluster's by {_TOKEN}"


def _network_reason(error: BaseException) -> str:
    """`Connection refused` and the like, from wherever it is in the chain of exceptions."""
    seen: BaseException | None = error
    while seen is not None:
        if found := re.search(r"\[Errno -?\d+\] (?:Connect call failed|([\w ]+))", str(seen)):
            return (found[1] or "Connection refused").strip().capitalize()
        if isinstance(seen, (requests.Timeout, TimeoutError)):
            return "no answer"
        if "certificate" in str(seen).lower():
            return "its TLS certificate is not trusted here"
        seen = seen.__cause__ or seen.__context__
    return "cannot be reached"


@contextmanager
def _api_server(address: str) -> Iterator[None]:
    """Ray's client prefers what is in the environment to the address that it is given."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _job(details: JobDetails) -> Job:
    return Job(
        id=details.submission_id or "",
        status=str(getattr(details.status, "value", details.status)),
        entrypoint=details.entrypoint,
        message=details.message or "",
        started=(details.start_time or 0) / 1000,
        ended=(details.end_time or 0) / 1000,
        exit_code=details.driver_exit_code,
        metadata=details.metadata or {},
    )

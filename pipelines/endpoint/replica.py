"""What answers: a process of Ray Serve that holds one model, gathers requests into batches and switches models between
two of them.

Every request of a batch is read and answered by the same model, so a switch loses none and mixes none. What is wrong
with one request is told to its sender alone.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve
from ray.serve import metrics
from ray.serve.config import AutoscalingConfig
from starlette.types import ASGIApp

from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.endpoint.app import build_app
from pipelines.endpoint.follow import Current, Follower, Source, find_source, logger, opened
from pipelines.models.answers import Answer, Answerer
from pipelines.models.limits import RequestError

NAME = "mind"
LATENCY_MS: list[float] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000]
METRICS_TIMEOUT_S = 10

Outcome = Answer | RequestError


def answer_all(answerer: Answerer, raws: list[Mapping[str, Any]]) -> list[Outcome]:
    """Read and answer requests; the mistake of one is its own outcome."""
    outcomes: list[Outcome | None] = [None] * len(raws)
    rows, requests = [], []
    for row, raw in enumerate(raws):
        try:
            requests.append(answerer.reader.read(raw))
            rows.append(row)
        except RequestError as error:
            outcomes[row] = error
    for row, answer in zip(rows, answerer.answer(requests), strict=True):
        outcomes[row] = answer
    return [outcome for outcome in outcomes if outcome is not None]


class Recommendations:
    """The deployment.

    Parameters
    ----------
    config : whose section `serve` says how.
    source : the model to begin with.
    """

    def __init__(self, config: Config, source: Source) -> None:
        torch.set_num_threads(max(1, int(config.serve.cpus)))
        self.config = config
        self.pool = ThreadPoolExecutor(1, "answer")
        self.requests = metrics.Counter(
            "mind_requests", "Requests by status and fallback.", _tags("status", "fallback")
        )
        self.latency = metrics.Histogram("mind_latency_ms", "Of a request in its replica.", LATENCY_MS, _tags("status"))
        self.unknown = metrics.Counter("mind_unknown_items", "Ids of histories that the model does not know.")
        self.switches = metrics.Counter("mind_model_switches", "Times that another model took over.")
        self.failures = metrics.Counter("mind_alias_failures", "Looks at the alias, or loads, that failed.")
        self.info = metrics.Gauge("mind_model", "1 for the model that answers.", _tags("model", "version"))
        self._current = opened(config, source)
        self._tell(self._current, 1)
        batching: Any = self.gather
        batching.set_max_batch_size(config.serve.batch)
        batching.set_batch_wait_timeout_s(config.serve.batch_wait_ms / 1000)
        self.follower = Follower(config, self._current, self.switch, self.failures.inc)
        if source.follows:
            self.follower.start()
        logger.info("serving %s", source)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_app(self)

    def __del__(self) -> None:
        if hasattr(self, "follower"):
            self.follower.stop()

    @property
    def current(self) -> Current:
        """The model that answers."""
        return self._current

    def switch(self, current: Current) -> None:
        """Let another model answer from the next batch on."""
        before, self._current = self._current, current
        self._tell(before, 0)
        self._tell(current, 1)
        self.switches.inc()
        logger.info("serving %s from now on, before it %s", current.source, before.source)

    async def answer(self, raw: Mapping[str, Any]) -> tuple[Answer, Current]:
        """Answer one request together with others."""
        outcome, current = await self.gather(raw)
        if isinstance(outcome, RequestError):
            raise outcome
        return outcome, current

    @serve.batch
    async def gather(self, raws: list[Mapping[str, Any]]) -> list[tuple[Outcome, Current]]:
        """Answer a batch; the model works in a thread of its own, so that the next batch is read meanwhile."""
        current = self._current
        loop = asyncio.get_running_loop()
        outcomes = await loop.run_in_executor(self.pool, answer_all, current.answerer, raws)
        return [(outcome, current) for outcome in outcomes]

    def count(self, status: int, seconds: float, answer: Answer | None) -> None:
        """Count a request in the metrics."""
        fallback = "" if answer is None or answer.fallback is None else answer.fallback
        self.requests.inc(tags={"status": str(status), "fallback": fallback})
        self.latency.observe(seconds * 1000, tags={"status": str(status)})
        self._tell(self._current, 1)  # Ray forgets what is not said again
        if answer is not None and answer.unknown:
            self.unknown.inc(answer.unknown)

    async def metrics(self) -> str:
        """Return what this node's agent of Ray exports: these metrics, and Ray's and Ray Serve's own."""
        return await asyncio.to_thread(node_metrics)

    def _tell(self, current: Current, value: int) -> None:
        name, version = current.answerer.model.card.name, current.source.version or ""
        self.info.set(value, tags={"model": name, "version": version})


def _tags(*names: str) -> Any:
    """Ray's own types know tuples of one name alone."""
    return names


def node_metrics() -> str:
    """Fetch the metrics of this node from its agent."""
    node = ray.get_runtime_context().get_node_id()
    (here,) = [each for each in ray.nodes() if each["NodeID"] == node]
    url = f"http://{here['NodeManagerAddress']}:{here['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=METRICS_TIMEOUT_S) as answer:
        return str(answer.read().decode())


def application(config: Config, source: Source) -> serve.Application:
    """Make what `serve.run` runs."""
    wanted = config.serve
    scale: dict[str, Any] = {"num_replicas": wanted.replicas}
    if wanted.max_replicas is not None:
        scale = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=wanted.replicas,
                max_replicas=wanted.max_replicas,
                target_ongoing_requests=wanted.busy_requests,
            )
        }
    deployment = serve.deployment(
        name=NAME,
        ray_actor_options={"num_cpus": wanted.cpus},
        max_ongoing_requests=max(wanted.queue, 2 * wanted.batch),
        max_queued_requests=wanted.queue,
        **scale,
    )(serve.ingress()(Recommendations))
    return deployment.bind(config, source)


def build(arguments: dict[str, str]) -> serve.Application:
    """Make the application of a Serve config file, e.g. of jobs/kuberay/service.yaml.

    Parameters
    ----------
    arguments : conf, the file of settings; model and home, as of `mind serve`; both may be left out.
    """
    sets = [f"home={arguments['home']}"] if "home" in arguments else []
    config = load_config(Path(arguments["conf"]), sets)
    return application(config, find_source(config, arguments.get("model")))

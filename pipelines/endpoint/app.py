"""The routes: POST /recommend, GET /health, /ready, /metrics, /docs and /openapi.json. Knows HTTP, and nothing of Ray.

Whatever a client sends, the answer is JSON: a list, or {"error": one line, "request_id": ...} with the status of the
mistake. The id of a request is the client's X-Request-ID or a new one; answer and log carry it.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.endpoint.follow import Current
from pipelines.endpoint.page import page
from pipelines.endpoint.schema import openapi
from pipelines.models.answers import Answer, Why
from pipelines.models.limits import RequestError
from pipelines.models.requests import parse_json

REQUEST_ID = "x-request-id"
LONGEST_ID = 100

logger = logging.getLogger("ray.serve")


class Service(Protocol):
    """What the routes need: a model, and how requests reach it."""

    @property
    def current(self) -> Current:
        """The model that answers."""

    async def answer(self, raw: Mapping[str, Any]) -> tuple[Answer, Current]:
        """Answer one request; a RequestError for a mistake in it."""

    def count(self, status: int, seconds: float, answer: Answer | None) -> None:
        """Count a request in the metrics."""

    async def metrics(self) -> str:
        """Return the metrics in Prometheus' text format."""


def build_app(service: Service) -> ASGIApp:
    """Make the application."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/recommend")
    async def recommend(request: Request) -> Response:
        started = time.perf_counter()
        request_id = request.headers[REQUEST_ID][:LONGEST_ID]
        answer: Answer | None = None
        try:
            raw = parse_json(await body_of(request, service.current.answerer.limits.body))
            answer, current = await service.answer(raw)
            status, content = 200, {**as_json(answer), **lineage(current), "request_id": request_id}
        except RequestError as error:
            status, content = error.status, {"error": str(error), "request_id": request_id}
        seconds = time.perf_counter() - started
        service.count(status, seconds, answer)
        of = f"n={len(answer.ids)} unknown={answer.unknown} fallback={answer.fallback}" if answer else content["error"]
        logger.info("recommend id=%s status=%d ms=%.1f %s", printable(request_id), status, seconds * 1000, of)
        return _json(content, status)

    @app.get("/health")
    async def health() -> Response:
        return _json({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        current = service.current
        card = current.answerer.model.card
        facts = {"items": len(current.answerer.ids), "run_id": card.run_id, "dataset": card.dataset_fingerprint}
        return _json({"status": "ready", **lineage(current), **facts})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await service.metrics(), media_type="text/plain; version=0.0.4")

    @app.get("/openapi.json")
    async def description() -> Response:
        return _json(openapi(service.current.answerer))

    @app.get("/docs")
    async def docs() -> Response:
        return HTMLResponse(page(service.current))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "what it is registered for"
        line = f"{request.method} {request.url.path[:LONGEST_ID]}: {error.detail}; see /docs"
        return _json({"error": line, "request_id": request.headers[REQUEST_ID]}, error.status_code)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        request_id = request.headers[REQUEST_ID]
        logger.error("request %s failed", printable(request_id), exc_info=error)
        return _json({"error": "internal error; the log tells it by the id", "request_id": request_id}, 500)

    return with_request_id(app)


async def body_of(request: Request, most: int) -> bytes:
    """Read the body; what says or turns out to be too long is not read to its end.

    Raises
    ------
    RequestError
        413 for a body of more than `most` bytes; 400 if the client went away.
    """
    said = request.headers.get("content-length", "")
    parts, length = [], int(said) if said.isdecimal() and len(said) < 20 else 0
    if length <= most:
        length = 0
        try:
            async for part in request.stream():
                length += len(part)
                if length > most:
                    break
                parts.append(part)
        except ClientDisconnect:
            raise RequestError("body: the client went away", 400) from None
    if length > most:
        raise RequestError(f"body: must be at most {most:,} bytes", 413)
    return b"".join(parts)


def as_json(answer: Answer) -> dict[str, Any]:
    """Make an answer's JSON: its items, best first, and what was made of the history."""
    items = []
    for place, (item, score, interest) in enumerate(zip(answer.ids, answer.scores, answer.interests, strict=True)):
        entry: dict[str, Any] = {"id": item, "score": score, "interest": None if interest < 0 else interest}
        if answer.shown:
            entry["show"] = answer.shown[place]
        if answer.why is not None:
            entry["why"] = _why(answer.why[place])
        items.append(entry)
    return {"items": items, "unknown": answer.unknown, "fallback": answer.fallback}


def lineage(current: Current) -> dict[str, Any]:
    """Name the model of an answer."""
    return {"model": current.answerer.model.card.name, "version": current.source.version}


def printable(text: str) -> str:
    """Write a client's text so that it cannot look like another line of a log.

    >>> printable("a b" + chr(27))
    "'a b\\\\x1b'"
    """
    return text if text.isascii() and text.isprintable() and " " not in text else ascii(text)


def with_request_id(app: ASGIApp) -> ASGIApp:
    """Give a request without an id one, and its answer the same. Where Ray Serve's proxy runs, it has done so."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or Headers(scope=scope).get(REQUEST_ID) is not None:
            await app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope = {**scope, "headers": [*scope["headers"], (REQUEST_ID.encode(), request_id.encode())]}

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append(REQUEST_ID, request_id)
            await send(message)

        await app(scope, receive, answered)

    return wrapped


def _why(why: Why) -> dict[str, Any]:
    behaviours = [{"id": item, "coupling": weight} for item, weight in why.behaviours]
    return {"share": why.share, "behaviours": behaviours, "again": why.again}


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    text = json.dumps(content, ensure_ascii=False, default=str, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, media_type="application/json")

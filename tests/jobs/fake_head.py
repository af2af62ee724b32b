"""A head's job server as Ray's client sees it, in a thread, with faults to order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


class FakeHead:
    """What was sent, and what is to go wrong.

    logs : pieces that a job's log is sent in.  break_after : of a log's pieces, on each connection but the last.
    lost_answers : to submissions that the head does take.  refusals : HTTP statuses, one for each request to come.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.sent: list[dict[str, Any]] = []
        self.packages: dict[str, bytes] = {}
        self.logs: list[str] = []
        self.break_after: list[int] = []
        self.lost_answers = 0
        self.refusals: list[int] = []
        self.status = "SUCCEEDED"
        self.message = ""
        self.exit_code: int | None = 0
        self.address = ""

    def add(self, job_id: str, **fields: Any) -> None:
        """A job, as ``/api/jobs/`` lists it."""
        self.jobs[job_id] = {
            "type": "SUBMISSION", "submission_id": job_id, "status": "RUNNING", "entrypoint": "python x.py",
            "message": "", "start_time": 1_764_000_000_000 + len(self.jobs), "end_time": None, "metadata": {}, **fields,
        }  # fmt: skip

    @web.middleware
    async def _faults(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.refusals:
            return web.Response(status=self.refusals.pop(0), text="no")
        response: web.StreamResponse = await handler(request)
        return response

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "x"})

    async def _package(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if request.method == "PUT":
            self.packages[name] = await request.read()
        return web.Response(status=200 if name in self.packages else 404)

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.sent.append(body)
        job_id = body["submission_id"]
        if job_id in self.jobs:
            return web.Response(status=500, text=f"ValueError: Job with submission_id {job_id} already exists.")
        self.add(job_id, entrypoint=body["entrypoint"], metadata=body["metadata"])
        if self.lost_answers:
            self.lost_answers -= 1
            assert request.transport is not None
            request.transport.close()
        return web.json_response({"job_id": job_id, "submission_id": job_id})

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response(list(self.jobs.values()))

    async def _info(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        return web.Response(status=404, text="Job does not exist") if job is None else web.json_response(job)

    async def _logs(self, _: web.Request) -> web.Response:
        return web.json_response({"logs": "".join(self.logs)})

    async def _stop(self, request: web.Request) -> web.Response:
        self.jobs[request.match_info["id"]]["status"] = "STOPPED"
        return web.json_response({"stopped": True})

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        breaks = self.break_after.pop(0) if self.break_after else None
        for piece in self.logs[:breaks]:
            await socket.send_str(piece)
        if breaks is not None:
            await asyncio.sleep(0.05)  # what was sent is on its way
            assert request.transport is not None
            request.transport.close()
            return socket
        self.jobs[request.match_info["id"]].update(
            status=self.status, message=self.message, driver_exit_code=self.exit_code, end_time=1_764_000_060_000
        )
        return socket


@contextmanager
def serving(head: FakeHead) -> Iterator[FakeHead]:
    """Serve on a free port; the address is in `head.address`."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application(middlewares=[head._faults], client_max_size=2**26)
        app.router.add_get("/api/version", head._version)
        app.router.add_get("/api/packages/{protocol}/{name}", head._package)
        app.router.add_put("/api/packages/{protocol}/{name}", head._package)
        app.router.add_post("/api/jobs/", head._submit)
        app.router.add_get("/api/jobs/", head._list)
        app.router.add_get("/api/jobs/{id}", head._info)
        app.router.add_get("/api/jobs/{id}/logs", head._logs)
        app.router.add_post("/api/jobs/{id}/stop", head._stop)
        app.router.add_get("/api/jobs/{id}/logs/tail", head._tail)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        head.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        return runner

    def serve() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield head
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

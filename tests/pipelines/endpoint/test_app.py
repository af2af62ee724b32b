"""The routes, over ASGI and without Ray: statuses, lines, ids of requests, and what is never read to its end."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.endpoint.app import build_app, printable
from pipelines.endpoint.follow import Current, Source
from pipelines.models.answers import Answer, Answerer
from pipelines.models.artifact import load_model
from pipelines.models.limits import Limits
from tests.pipelines.small_model import PROFILE, save_small


class Alone:
    """A service that answers one request at a time."""

    def __init__(self, current: Current) -> None:
        self.current = current
        self.counted: list[tuple[int, str | None]] = []
        self.broken = False

    async def answer(self, raw: Mapping[str, Any]) -> tuple[Answer, Current]:
        if self.broken:
            raise ZeroDivisionError("of ours")
        answerer = self.current.answerer
        return answerer.answer([answerer.reader.read(raw)])[0], self.current

    def count(self, status: int, seconds: float, answer: Answer | None) -> None:
        self.counted.append((status, None if answer is None else answer.fallback))

    async def metrics(self) -> str:
        return "mind_requests 1\n"


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Current:
    folder = save_small(tmp_path_factory.mktemp("models") / "small")
    return Current(Source(folder, "3"), Answerer(load_model(folder), Limits(body=10_000)))


@pytest.fixture
def service(current: Current) -> Alone:
    return Alone(current)


def send(service: Alone, method: str = "POST", path: str = "/recommend", **more: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **more)

    return asyncio.run(run())


def test_a_list_names_its_model_and_the_items(service: Alone) -> None:
    answer = send(service, json={"history": [101, 999], "n": 2, "explain": True}, headers={"X-Request-ID": "abc"})
    assert answer.status_code == 200
    content = answer.json()
    assert (content["model"], content["version"], content["unknown"], content["fallback"]) == ("small-0", "3", 1, None)
    assert content["request_id"] == "abc"
    assert len(content["items"]) == 2
    first = content["items"][0]
    assert set(first) == {"id", "score", "interest", "show", "why"}
    assert first["why"]["behaviours"] == [{"id": 101, "coupling": 1.0}]
    assert service.counted == [(200, None)]


def test_an_empty_history_says_that_its_list_is_the_popular_one(service: Alone) -> None:
    content = send(service, json={"history": [], "n": 2}).json()
    assert content["fallback"] == "popular"
    assert [item["interest"] for item in content["items"]] == [None, None]
    assert service.counted == [(200, "popular")]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[" * 9_000, 400), (b"{}", 422), (b" " * 10_001, 413), (b'{"history": [1], "n": 0}', 422)],
)
def test_a_mistake_is_a_line_with_its_status(service: Alone, body: bytes, status: int) -> None:
    answer = send(service, content=body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "request_id"}
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert service.counted == [(status, None)]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/recommend", 405), ("POST", "/x", 404)])
def test_another_path_or_method_is_a_line_too(service: Alone, method: str, path: str, status: int) -> None:
    answer = send(service, method, path)
    assert answer.status_code == status
    assert f"{method} {path}" in answer.json()["error"]


def test_a_body_that_is_too_long_is_not_read_to_its_end(service: Alone) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10**8:
            sent += 10_000
            yield b" " * 10_000

    assert send(service, content=endless()).status_code == 413  # its length is not said
    assert sent <= 40_000
    said = send(service, content=b"{}", headers={"Content-Length": str(10**12)})
    assert said.status_code == 413


def test_a_mistake_of_ours_tells_the_log_and_not_the_client(service: Alone, caplog: pytest.LogCaptureFixture) -> None:
    service.broken = True
    with caplog.at_level(logging.ERROR, "ray.serve"):
        answer = send(service, json={"history": []}, headers={"X-Request-ID": "xyz"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal error; the log tells it by the id", "request_id": "xyz"}
    assert "request xyz failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_the_log_has_the_id_of_a_request(service: Alone, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        send(service, json={"history": [], "n": 2}, headers={"X-Request-ID": "abc"})
        send(service, json={"history": [], "n": 0}, headers={"X-Request-ID": "abd"})
    lines = [record.getMessage() for record in caplog.records if record.name == "ray.serve"]
    assert lines[0].startswith("recommend id=abc status=200")
    assert lines[1].startswith("recommend id=abd status=422")
    assert lines[1].endswith("n=0: must be an integer from 1 to 1,000")


def test_an_id_of_a_client_cannot_look_like_a_line_of_the_log() -> None:
    assert printable("a\nb") == r"'a\nb'"
    assert printable("a b") == "'a b'"


def test_alive_ready_and_metrics(service: Alone) -> None:
    assert send(service, "GET", "/health").json() == {"status": "ok"}
    ready = send(service, "GET", "/ready").json()
    assert (ready["status"], ready["model"], ready["version"], ready["items"]) == ("ready", "small-0", "3", 40)
    assert send(service, "GET", "/metrics").text == "mind_requests 1\n"


def test_the_description_names_the_models_own_features_and_is_openapi(service: Alone) -> None:
    found = send(service, "GET", "/openapi.json").json()
    schema = found["paths"]["/recommend"]["post"]["requestBody"]["content"]["application/json"]
    properties = schema["schema"]["properties"]["profile"]["properties"]
    assert set(properties) == set(PROFILE)
    assert properties["vip"]["type"] == ["boolean", "null"]
    assert found["openapi"] == "3.1.0"
    assert send(service, json=schema["example"]).status_code == 200
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(schema["schema"])
    jsonschema.validate(schema["example"], schema["schema"])
    answer = found["paths"]["/recommend"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(send(service, json={"history": [101], "explain": True}).json(), answer)


def test_the_page_loads_nothing_from_elsewhere_and_escapes_names(current: Current) -> None:
    card = replace(current.answerer.model.card, name="<b>")
    answerer = Answerer(current.answerer.model)
    answerer.model = type(answerer.model)(current.source.folder, card, answerer.model.retriever, answerer.model.items)
    page = send(Alone(Current(current.source, answerer)), "GET", "/docs").text
    assert "&lt;b&gt;" in page
    assert "<b><" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "profile" in page


def test_text_that_is_no_utf8_comes_back_as_json(service: Alone) -> None:
    answer = send(service, content=b'{"history": ["\\ud800"]}')
    assert answer.status_code == 422
    json.loads(answer.content)


def test_the_folder_of_a_source_is_shown_with_its_version() -> None:
    assert str(Source(Path("/m"), "3")) == "/m (version 3)"

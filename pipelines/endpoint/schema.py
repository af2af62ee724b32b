"""The endpoint in OpenAPI's words, with the types and the profile features of the model that answers."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipelines.dataset.vocabulary import FeatureEncoder
from pipelines.models.answers import Answerer
from pipelines.models.limits import DEFAULT_N

LINE = {"type": "object", "properties": {"error": {"type": "string"}, "request_id": {"type": "string"}}}
MISTAKES = {
    "400": "The body is no JSON.",
    "413": "The body, a history or another list is too long.",
    "422": "A field cannot be read; the line names it, what was found and what is accepted.",
    "503": "More requests wait than serve.queue allows.",
}


def openapi(answerer: Answerer) -> dict[str, Any]:
    """Describe all routes (OpenAPI 3.1)."""
    answers = {"200": _response("The list, best first.", answer_schema(answerer))}
    answers |= {status: _response(line, LINE) for status, line in MISTAKES.items()}
    body = {"required": True, "content": {"application/json": {"schema": request_schema(answerer),
                                                               "example": example(answerer)}}}  # fmt: skip
    text = {"200": {"description": "Prometheus' text format.", "content": {"text/plain": {}}}}
    status = {"200": _response("Whether it answers.", {"type": "object"})}
    return {
        "openapi": "3.1.0",
        "info": {"title": "mind serve", "version": answerer.model.card.name},
        "paths": {
            "/recommend": {"post": {"summary": "List items for a history.", "requestBody": body, "responses": answers}},
            "/health": {"get": {"summary": "Is the process alive?", "responses": status}},
            "/ready": {"get": {"summary": "Which model answers?", "responses": status}},
            "/metrics": {"get": {"summary": "What was asked, and how long it took.", "responses": text}},
        },
    }


def request_schema(answerer: Answerer) -> dict[str, Any]:
    """Describe a request; `pipelines.models.requests` reads it."""
    limits, id_type = answerer.limits, _type(answerer.ids.type)
    ids = {"type": "array", "items": {"type": id_type}, "maxItems": limits.items}
    features = {encoder.name: _feature(encoder) for encoder in answerer.model.profile_encoders}
    profile = {"type": "object", "properties": features, "additionalProperties": False}
    fields: dict[str, dict[str, Any]] = {
        "history": {**ids, "maxItems": limits.history, "description": "Item ids, oldest first. Unknown ones are "
                    "skipped and counted; without a known one the list is the popular one."},
        "n": {"type": "integer", "minimum": 1, "maximum": limits.n, "default": DEFAULT_N,
              "description": "Length of the list."},
        "profile": {**profile, "description": "What is known of the user; what is absent counts as missing."},
        "exclude": {**ids, "description": "Items that may not be in the list."},
        "only": {**ids, "description": "Items that may be in the list; without it, all."},
        "where": {"type": "string", "maxLength": limits.where, "description": "Items that may be in the list, by the "
                  "columns of the item table: department != 'FUEL' and price < 5"},
        "seen": {"enum": ["filter", "keep"], "description": "Whether items of the history may be in the list.",
                 "default": "filter" if answerer.model.card.exclude_seen else "keep"},
        "explain": {"type": "boolean", "default": False, "description": "Say why each item is there."},
    }  # fmt: skip
    return {"type": "object", "properties": fields, "required": ["history"], "additionalProperties": False}


def answer_schema(answerer: Answerer) -> dict[str, Any]:
    """Describe an answer."""
    id_type = _type(answerer.ids.type)
    behaviour = {"type": "object", "properties": {"id": {"type": id_type}, "coupling": {"type": "number"}}}
    why = {"type": "object", "description": "With explain: the part of the history that went to this interest, the "
           "behaviours that went there most, and how often the item is in the history.",
           "properties": {"share": {"type": "number"}, "behaviours": {"type": "array", "items": behaviour},
                          "again": {"type": "integer"}}}  # fmt: skip
    item = {"type": "object", "properties": {
        "id": {"type": id_type}, "score": {"type": "number"},
        "interest": {"type": ["integer", "null"], "description": "Which of the user's interests found it, from 0."},
        "show": {"type": "object", "description": "Columns of the item table (data.items.show)."}, "why": why,
    }}  # fmt: skip
    return {"type": "object", "properties": {
        "items": {"type": "array", "items": item},
        "unknown": {"type": "integer", "description": "Ids of the history that the model does not know."},
        "fallback": {"enum": ["popular", None], "description": "What the list is instead of the user's own."},
        "model": {"type": "string"}, "version": {"type": ["string", "null"]}, "request_id": {"type": "string"},
    }}  # fmt: skip


def example(answerer: Answerer) -> dict[str, Any]:
    """Make a request that this model answers."""
    return {"history": answerer.ids[:3].to_pylist(), "n": 5}


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _feature(encoder: FeatureEncoder) -> dict[str, Any]:
    """Describe a profile feature; missing is null, or absent."""
    kind = "number" if encoder.values is None else _type(encoder.values.type)
    if encoder.kind == "multi":
        return {"type": ["array", "null"], "items": {"type": kind}}
    some = {} if encoder.values is None else {"examples": encoder.values.cast(pa.string())[:5].to_pylist()}
    return {"type": [kind, "null"], **some}


def _type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    return "number" if pa.types.is_floating(kind) else "string"  # times as ISO text

"""The OpenAPI description of the native server, made from the types that bodies are checked against."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from windtunnel import __version__
from windtunnel.endpoint.bodies import BODIES, CHOICES_MAX, IDS_SCHEMA, INPUTS_MAX, TEXTS_SCHEMA

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_OBJECTS = {
    "/v1/chat/completions": (("id", "object", "created", "model", "choices", "usage"), True),
    "/v1/completions": (("id", "object", "created", "model", "choices", "usage"), True),
    "/v1/responses": (("id", "object", "created_at", "model", "status", "output", "usage"), True),
    "/v1/embeddings": (("object", "data", "model", "usage"), False),
}
_MISTAKES = {
    "400": "the body cannot be understood",
    "404": "the model is not served here",
    "413": "the body is too large",
    "429": "the queue is full; Retry-After says when to come again",
}


@cache
def document() -> dict[str, Any]:
    """The whole description, version 3.1."""
    _, components = msgspec.json.schema_components(
        list(BODIES.values()), ref_template="#/components/schemas/{name}"
    )
    prompts = {**TEXTS_SCHEMA, "maxItems": CHOICES_MAX}
    listed = {**TEXTS_SCHEMA, "maxItems": INPUTS_MAX}
    text = {"type": "string", "minLength": 1}
    components["CompletionBody"]["properties"]["prompt"] = {"anyOf": [text, IDS_SCHEMA, prompts]}
    inputs = [text, {**IDS_SCHEMA, "maxItems": INPUTS_MAX}, listed]
    components["EmbeddingBody"]["properties"]["input"] = {"anyOf": inputs}
    posts = {path: {"post": _post(path, kind.__name__)} for path, kind in BODIES.items()}
    gets = {
        "/v1/models": {"get": _get("The models that are served", "application/json", {"type": "object"})},
        "/version": {"get": _get("The version of windtunnel", "application/json", {"type": "object"})},
        "/metrics": {"get": _get("Prometheus metrics", "text/plain", {"type": "string"})},
        "/health": {"get": {"summary": "Whether it serves", "responses": {"200": {"description": "yes"}}}},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Windtunnel endpoint", "version": __version__},
        "paths": {**posts, **gets},
        "components": {"schemas": {**components, "Error": _ERROR}},
    }


def _post(path: str, body: str) -> dict[str, Any]:
    fields, streamed = _OBJECTS[path]
    content: dict[str, Any] = {
        "application/json": {"schema": {"type": "object", "required": list(fields)}},
    }
    if streamed:
        content["text/event-stream"] = {"schema": {"type": "object", "required": ["data"]}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    mistakes = {status: {"description": why, "content": error} for status, why in _MISTAKES.items()}
    return {
        "summary": f"As OpenAI's {path}",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}},
        },
        "responses": {"200": {"description": "the answer", "content": content}, **mistakes},
    }


def _get(summary: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "it", "content": {kind: {"schema": schema}}}},
    }

"""The form that a body wants its answer in: a schema, or one of some whole texts."""

from __future__ import annotations

import json

from windtunnel.endpoint.bodies import UNSUPPORTED, BadBody, ResponseFormat, StructuredOutputs
from windtunnel.endpoint.instance import Schema
from windtunnel.endpoint.patterns import matching


def structured(wanted: StructuredOutputs | None) -> Schema | None:
    """The schema of vLLM's ``structured_outputs``. Raises BadBody."""
    if wanted is None or (wanted.json is None and not wanted.json_object):
        return None
    try:
        found = json.loads(wanted.json) if isinstance(wanted.json, str) else wanted.json or {"type": "object"}
    except ValueError as error:
        raise BadBody(f"structured_outputs.json is no JSON: {error}", "structured_outputs.json") from None
    if not isinstance(found, dict):
        raise BadBody("structured_outputs.json must be a schema", "structured_outputs.json")
    return found


def options(wanted: StructuredOutputs | None) -> tuple[str, ...]:
    """The whole texts that ``structured_outputs`` leaves to say. Raises BadBody."""
    if wanted is not None and wanted.choice:
        return tuple(wanted.choice)
    if wanted is None or wanted.regex is None:
        return ()
    text = matching(wanted.regex)
    if text is None:
        raise BadBody(
            "structured_outputs.regex is none, or has parts that are not followed here (look-arounds, groups again)",
            "structured_outputs.regex", code=UNSUPPORTED,
        )  # fmt: skip
    return (text,)


def schema(wanted: ResponseFormat | None) -> Schema | None:
    """The schema of OpenAI's ``response_format``. Raises BadBody."""
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_schema" and wanted.json_schema is None and wanted.schema is None:
        raise BadBody("response_format: json_schema needs a `json_schema`", "response_format")
    found = wanted.schema or (wanted.json_schema.schema if wanted.json_schema else None)
    return found or {"type": "object", "properties": {"answer": {"type": "string"}}}

"""A value that a JSON schema accepts: for tool arguments and structured answers. The common keywords only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

Schema = Mapping[str, object]
DEPTH_MAX = 12


def instance(schema: Schema, topic: str = "", root: Schema | None = None, depth: int = 0) -> object:
    """A value for ``schema``; strings speak of ``topic``. Understands $ref, enum, const, anyOf and types."""
    root = schema if root is None else root
    if depth > DEPTH_MAX:
        return None
    if "$ref" in schema:
        return instance(_resolved(str(schema["$ref"]), root), topic, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return cast("list[object]", schema["enum"])[0]
    for key in ("anyOf", "oneOf", "allOf"):
        options = cast("list[Schema]", schema.get(key) or [])
        if options:
            plain = [option for option in options if option.get("type") != "null"]
            return instance((plain or options)[0], topic, root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind == "object":
        properties = cast("Mapping[str, Schema]", schema.get("properties") or {})
        return {name: instance(part, name, root, depth + 1) for name, part in properties.items()}
    if kind == "array":
        least = int(cast("int", schema.get("minItems", 1)))
        items = cast("Schema", schema.get("items") or {})
        return [instance(items, topic, root, depth + 1) for _ in range(least)]
    return _scalar(str(kind), schema, topic)


def _scalar(kind: str, schema: Schema, topic: str) -> object:
    if kind == "integer":
        return int(cast("float", schema.get("minimum", 1)))
    if kind == "number":
        return float(cast("float", schema.get("minimum", 1.0)))
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    text = f"{topic or 'value'} as asked"
    return text[: int(cast("int", schema.get("maxLength", len(text))))]


def _resolved(reference: str, root: Schema) -> Schema:
    found: object = root
    for part in filter(None, reference.removeprefix("#").split("/")):
        if not isinstance(found, Mapping) or part not in found:
            return {}
        found = found[part]
    return cast("Schema", found) if isinstance(found, Mapping) else {}

"""A value that a JSON schema accepts: for tool arguments and structured answers.

Understood: $ref, const, enum, anyOf, oneOf, allOf, types, required and optional properties, lengths, bounds, multiples,
counts of items, and common formats. Not understood, and then perhaps missed: pattern, not, if, dependencies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import cast

Schema = Mapping[str, object]
DEPTH_MAX = 12
TOPIC = "value"
_FORMATS = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T10:30:00Z",
    "time": "10:30:00Z",
    "email": "team@example.com",
    "uri": "https://example.com/page",
    "url": "https://example.com/page",
    "uuid": "3f2b8a54-6c1d-4e7a-9b0f-5d8c2e1a7f36",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}


def instance(schema: Schema, topic: str = "", root: Schema | None = None, depth: int = 0) -> object:
    """A value for ``schema``; strings speak of ``topic``. Recursion ends after twelve levels with null."""
    root = schema if root is None else root
    if depth > DEPTH_MAX or not isinstance(schema, Mapping):
        return None
    if "$ref" in schema:
        return instance(_resolved(str(schema["$ref"]), root), topic, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return cast("list[object]", schema["enum"])[0]
    if schema.get("allOf"):
        return instance(_merged(schema, root), topic, root, depth + 1)
    for key in ("anyOf", "oneOf"):
        options = cast("list[Schema]", schema.get(key) or [])
        if options:
            rest = {name: part for name, part in schema.items() if name != key}
            plain = [option for option in options if _mapping(option).get("type") != "null"]
            return instance({**rest, **_mapping((plain or options)[0])}, topic, root, depth + 1)
    kind = _kind(schema)
    if kind == "object":
        return _object(schema, topic, root, depth)
    if kind == "array":
        return _array(schema, topic, root, depth)
    return _scalar(kind, schema, topic)


def _kind(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        kind = next((one for one in kind if one != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if "minimum" in schema or "maximum" in schema else "string"


def _object(schema: Schema, topic: str, root: Schema, depth: int) -> dict[str, object]:
    properties = _mapping(schema.get("properties"))
    required = [str(name) for name in cast("Sequence[object]", schema.get("required") or ())]
    # optional parts are left out where they would go ever deeper
    names = list(properties) if depth < DEPTH_MAX // 2 else [n for n in properties if n in required]
    value = {
        name: instance(_mapping(properties[name]), _about(name, topic), root, depth + 1) for name in names
    }
    other = _mapping(schema.get("additionalProperties"))
    for name in required:
        if name not in value:
            value[name] = instance(other, _about(name, topic), root, depth + 1)
    return value


def _array(schema: Schema, topic: str, root: Schema, depth: int) -> list[object]:
    firsts = cast("list[Schema]", schema.get("prefixItems") or [])
    most = int(cast("int", schema.get("maxItems", 1 << 30)))
    least = int(cast("int", schema.get("minItems", 0 if depth >= DEPTH_MAX // 2 else 1)))
    count = min(max(least, len(firsts)), most)
    items = _mapping(schema.get("items"))
    made: list[object] = [instance(_mapping(part), topic, root, depth + 1) for part in firsts[:count]]
    options = cast("list[object]", items.get("enum") or [])
    while len(made) < count:
        place = len(made)
        if schema.get("uniqueItems") and options:
            made.append(options[place % len(options)])
        else:
            made.append(_distinct(instance(items, topic, root, depth + 1), place, schema))
    return made


def _distinct(value: object, place: int, schema: Schema) -> object:
    """The ``place``-th of a list whose items must differ."""
    if not schema.get("uniqueItems") or not place:
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value + place
    return f"{value} {place + 1}" if isinstance(value, str) else value


def _scalar(kind: str, schema: Schema, topic: str) -> object:
    if kind in ("integer", "number"):
        return _number(kind, schema)
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    named = _FORMATS.get(str(schema.get("format")))
    if named:
        return named
    text = topic or TOPIC
    least, most = int(cast("int", schema.get("minLength", 0))), schema.get("maxLength")
    text += " and so on" * max(0, math.ceil((least - len(text)) / 10))
    return text if most is None else text[: int(cast("int", most))]


def _number(kind: str, schema: Schema) -> float:
    low = cast("float | None", schema.get("minimum"))
    high = cast("float | None", schema.get("maximum"))
    over = cast("float | None", schema.get("exclusiveMinimum"))
    under = cast("float | None", schema.get("exclusiveMaximum"))
    step = cast("float", schema.get("multipleOf", 1 if kind == "integer" else 0))
    if step:
        value = step * (math.ceil(low / step) if low is not None else 1)
        if over is not None and value <= over:
            value = step * (math.floor(over / step) + 1)
        if high is not None and value > high:
            value = step * math.floor(high / step)
        if under is not None and value >= under:
            value = step * (math.ceil(under / step) - 1)
        return int(value) if kind == "integer" else value
    bottom = low if low is not None else over
    top = high if high is not None else under
    if bottom is not None and top is not None:
        return (bottom + top) / 2
    if bottom is not None:
        return bottom + 1.0
    return min(1.0, top - 1.0) if top is not None else 1.0


def _merged(schema: Schema, root: Schema) -> dict[str, object]:
    """``allOf`` as one schema: properties and required lists join, other keys of later parts win."""
    whole: dict[str, object] = {name: part for name, part in schema.items() if name != "allOf"}
    for part in cast("list[Schema]", schema["allOf"]):
        part = _mapping(part)
        if "$ref" in part:
            part = _resolved(str(part["$ref"]), root)
        both = {**_mapping(whole.get("properties")), **_mapping(part.get("properties"))}
        needed = [
            *cast("list[str]", whole.get("required") or []),
            *cast("list[str]", part.get("required") or []),
        ]
        whole |= part
        if both:
            whole["properties"] = both
        if needed:
            whole["required"] = needed
    return whole


def _about(name: str, topic: str) -> str:
    """What a string of that name says."""
    words = name.replace("_", " ").strip()
    return f"{words}: {topic}" if topic and words else words or topic


def _mapping(value: object) -> Schema:
    return value if isinstance(value, Mapping) else {}


def _resolved(reference: str, root: Schema) -> Schema:
    found: object = root
    for part in filter(None, reference.removeprefix("#").split("/")):
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or part not in found:
            return {}
        found = found[part]
    return _mapping(found)


def text(schema: Schema, topic: str = "") -> str:
    """The same as JSON."""
    return json.dumps(instance(schema, topic), ensure_ascii=False)

"""A value that a JSON schema accepts: for tool arguments and structured answers.

Understood: $ref, const, enum, anyOf, oneOf, allOf, types, required and optional properties, lengths, bounds, multiples,
counts of items, patterns (without look-arounds), and common formats. Not understood, and then perhaps missed: not, if,
dependencies. Schemas come from anybody: what they say in a wrong type counts as not said, and what they make without
end ends after ``PARTS_MAX`` parts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windtunnel.endpoint.patterns import matching

Schema = Mapping[str, object]
DEPTH_MAX = 12
PARTS_MAX = 20_000
"""Values in a value, fifty letters counting as one: more than most contexts hold."""
LETTERS = 50
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


@dataclass(slots=True)
class _Whole:
    """The schema that references point into, which of its values is wanted, and how many parts it may still have."""

    schema: Schema
    draw: int = 0
    left: int = PARTS_MAX


def instance(schema: Schema, topic: str = "", draw: int = 0) -> object:
    """A value for ``schema``; strings speak of ``topic``. Recursion ends after twelve levels with null.

    ``draw``: each next one takes the next of a list of options, of yes and no, and of whole numbers between bounds.
    """
    return _value(schema, topic, _Whole(schema, draw), 0)


def _value(schema: Schema, topic: str, root: _Whole, depth: int) -> object:
    root.left -= 1
    if depth > DEPTH_MAX or root.left < 0 or not isinstance(schema, Mapping):
        return None
    if "$ref" in schema:
        return _value(_resolved(str(schema["$ref"]), root.schema), topic, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if options := _list(schema.get("enum")):
        return options[root.draw % len(options)]
    if _list(schema.get("allOf")):
        return _value(_merged(schema, root.schema), topic, root, depth + 1)
    for key in ("anyOf", "oneOf"):
        if options := _list(schema.get(key)):
            rest = {name: part for name, part in schema.items() if name != key}
            plain = [option for option in options if _mapping(option).get("type") != "null"]
            return _value({**rest, **_mapping((plain or options)[0])}, topic, root, depth + 1)
    kind = _kind(schema)
    if kind == "object":
        return _object(schema, topic, root, depth)
    if kind == "array":
        return _array(schema, topic, root, depth)
    return _scalar(kind, schema, topic, root)


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


def _object(schema: Schema, topic: str, root: _Whole, depth: int) -> dict[str, object]:
    properties = _mapping(schema.get("properties"))
    required = [str(name) for name in _list(schema.get("required"))]
    # optional parts are left out where they would go ever deeper
    names = list(properties) if depth < DEPTH_MAX // 2 else [n for n in properties if n in required]
    other = _mapping(schema.get("additionalProperties"))
    value: dict[str, object] = {}
    for name in dict.fromkeys((*names, *required)):
        if root.left <= 0:
            break
        part = _mapping(properties[name]) if name in properties else other
        value[name] = _value(part, _about(name, topic), root, depth + 1)
    least = _count(schema.get("minProperties"), 0)
    while len(value) < least and root.left > 0:
        name = f"part {len(value) + 1}"
        value[name] = _value(other, _about(name, topic), root, depth + 1)
    return value


def _array(schema: Schema, topic: str, root: _Whole, depth: int) -> list[object]:
    firsts = _list(schema.get("prefixItems"))
    most = _count(schema.get("maxItems"), 1 << 30)
    least = _count(schema.get("minItems"), 0 if depth >= DEPTH_MAX // 2 else 1)
    count = min(max(least, len(firsts)), most)
    items = _mapping(schema.get("items"))
    made: list[object] = []
    options = _list(items.get("enum"))
    while len(made) < count and root.left > 0:
        place = len(made)
        if place < len(firsts):
            made.append(_value(_mapping(firsts[place]), topic, root, depth + 1))
        elif schema.get("uniqueItems") and options:
            root.left -= 1
            made.append(options[place % len(options)])
        else:
            made.append(_distinct(_value(items, topic, root, depth + 1), place, schema))
    return made


def _distinct(value: object, place: int, schema: Schema) -> object:
    """The ``place``-th of a list whose items must differ."""
    if not schema.get("uniqueItems") or not place:
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value + place
    return f"{value} {place + 1}" if isinstance(value, str) else value


def _scalar(kind: str, schema: Schema, topic: str, root: _Whole) -> object:
    if kind in ("integer", "number"):
        return _next(_number(kind, schema), schema, root.draw)
    if kind == "boolean":
        return bool(root.draw % 2)
    if kind == "null":
        return None
    least, most = _count(schema.get("minLength"), 0), _count(schema.get("maxLength"), 1 << 30)
    least = min(least, max(0, root.left) * LETTERS)
    root.left -= least // LETTERS
    pattern = schema.get("pattern")
    written = matching(pattern, least) if isinstance(pattern, str) else None
    if written is not None:
        return written[:most]
    named = _FORMATS.get(str(schema.get("format")))
    if named:
        return named
    text = topic or TOPIC
    return (text + " and so on" * max(0, math.ceil((least - len(text)) / 10)))[:most]


def _next(value: float, schema: Schema, draw: int) -> float:
    """The ``draw``-th whole number between two bounds, from ``value`` on; ``value`` where there are none."""
    low, high = schema.get("minimum"), schema.get("maximum")
    others = ("multipleOf", "exclusiveMinimum", "exclusiveMaximum")
    if type(value) is not int or type(low) is not int or type(high) is not int:
        return value
    if not low <= value <= high or any(name in schema for name in others):
        return value
    return low + (value - low + draw) % (high - low + 1)


def _number(kind: str, schema: Schema) -> float:
    names = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    low, high, over, under = (_bound(schema.get(name)) for name in names)
    step = _bound(schema.get("multipleOf"))
    step = (1 if kind == "integer" else 0) if step is None or step <= 0 else step
    try:
        if step:
            return _multiple(step, kind, low, high, over, under)
    except (OverflowError, ValueError):
        pass  # no multiple of a step so small is a number of this machine
    bottom = low if low is not None else over
    top = high if high is not None else under
    if bottom is not None and top is not None:
        return (bottom + top) / 2
    if bottom is not None:
        return bottom + 1.0
    return min(1.0, top - 1.0) if top is not None else 1.0


def _multiple(
    step: float, kind: str, low: float | None, high: float | None, over: float | None, under: float | None
) -> float:
    value = step * (math.ceil(low / step) if low is not None else 1)
    if over is not None and value <= over:
        value = step * (math.floor(over / step) + 1)
    if high is not None and value > high:
        value = step * math.floor(high / step)
    if under is not None and value >= under:
        value = step * (math.ceil(under / step) - 1)
    return int(value) if kind == "integer" else value


def _merged(schema: Schema, root: Schema) -> dict[str, object]:
    """``allOf`` as one schema: properties and required lists join, other keys of later parts win."""
    whole: dict[str, object] = {name: part for name, part in schema.items() if name != "allOf"}
    for entry in _list(schema["allOf"]):
        part = _mapping(entry)
        if "$ref" in part:
            part = _resolved(str(part["$ref"]), root)
        both = {**_mapping(whole.get("properties")), **_mapping(part.get("properties"))}
        needed = [*_list(whole.get("required")), *_list(part.get("required"))]
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


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _bound(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _count(value: object, otherwise: int) -> int:
    number = _bound(value)
    return otherwise if number is None else int(max(0, min(number, 1 << 30)))


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

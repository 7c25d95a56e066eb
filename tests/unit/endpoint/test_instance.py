"""Schemas as anybody may send them: patterns kept, no value without end, no type believed."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.endpoint import asked, embedding
from windtunnel.endpoint.bodies import BadBody
from windtunnel.endpoint.conversation import Conversation
from windtunnel.endpoint.instance import instance
from windtunnel.endpoint.patterns import matching
from windtunnel.endpoint.teams import structure

PATTERNS = [
    r"^\d{4}-\d{2}$", r"^[A-Z]{3}-\d+$", r"(foo|bar)+", r"^(a+)+$", r"^[^abc]{2}$", r"^\S+@\S+\.\w{2,}$", r"^\w+$",
    r"^.{10,20}$", r"^$", r"^[a-z0-9_-]{1,64}$", r"^#(?:[0-9a-fA-F]{3}){1,2}$", r"a|b", r"^[^\s]+$", r"^(?i:abc)$",
    r"^(\+\d{1,2}\s)?\(?\d{3}\)?[\s.-]\d{3}[\s.-]\d{4}$", r"^(([01]?\d|2[0-3]):[0-5]\d)$", r"[^\W\d_]+", r"\bfoo\b",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("least", [0, 12])
def test_patterns_are_kept(pattern: str, least: int) -> None:
    text = matching(pattern, least)
    assert text is not None
    assert re.search(pattern, text)
    assert instance({"type": "string", "pattern": pattern, "minLength": least}) == text


@pytest.mark.parametrize("pattern", ["([", r"^(?=x)y$", r"(a)\1", r"^a{1000000}$", r"\p{L}"])
def test_patterns_that_are_not_followed(pattern: str) -> None:
    assert matching(pattern) is None
    assert isinstance(instance({"type": "string", "pattern": pattern}), str)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "object", "minProperties": 10**9},
        {"$defs": {"X": {"type": "object", "properties": {f"p{n}": {"$ref": "#/$defs/X"} for n in range(100)}}},
         "$ref": "#/$defs/X"},
        {"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000, "items": {"type": "array",
         "minItems": 1000}}},
        {"type": "string", "pattern": "^((a{64}){64}){64}$"},
    ],
)  # fmt: skip
def test_no_value_is_without_end(schema: dict[str, object]) -> None:
    began = time.process_time()
    assert len(json.dumps(instance(schema))) < 4_000_000
    assert time.process_time() - began < 2.0


KEYS = (
    "type", "minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "multipleOf",
    "required", "properties", "items", "prefixItems", "enum", "anyOf", "allOf", "$ref", "pattern", "format",
    "additionalProperties", "uniqueItems", "minProperties", "const",
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
    | st.sampled_from(["object", "array", "integer", "number", "string", "#", "#/items"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
def test_no_schema_is_too_strange(schema: dict[str, object]) -> None:
    json.dumps(instance(schema, "topic"))
    json.dumps(instance(schema, "topic", 3))


def test_long_fields_stay_within_their_bounds() -> None:
    talk = Conversation([{"role": "user", "content": "Write the report"}])
    bounded = {"type": "string", "maxLength": 20}
    said = structure(
        talk, {"type": "object", "properties": {"summary": bounded}, "required": ["summary"]}, 150
    )
    assert said is not None
    assert len(json.loads(said)["summary"]) <= 20
    free = structure(talk, {"type": "object", "properties": {"summary": {"type": "string"}}}, 150)
    assert free is not None
    assert len(json.loads(free)["summary"]) > 200


CHAT = {"messages": [{"role": "user", "content": "hi"}]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "nope"}}}, "tool_choice"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, None),
    ],
)
def test_chats_that_cannot_be_answered(body: dict[str, object], param: str | None) -> None:
    with pytest.raises(BadBody) as caught:
        asked.chat(json.dumps({**CHAT, **body}).encode())
    assert caught.value.param == param
    assert asked.chat(json.dumps({"messages": [{"role": "user", "content": "\U0001f600"}]}).encode()).prompt


def test_responses_are_not_kept() -> None:
    with pytest.raises(BadBody) as caught:
        asked.response(b'{"input": "go on", "previous_response_id": "resp_1"}')
    assert (caught.value.status, caught.value.param) == (404, "previous_response_id")


def test_token_ids_count_as_many_tokens() -> None:
    assert embedding.answer(b'{"input": [[1, 2, 3], [4]]}', "m")["usage"] == {
        "prompt_tokens": 4,
        "total_tokens": 4,
    }
    assert embedding.answer(b'{"input": "abcdefgh"}', "m")["usage"] == {"prompt_tokens": 2, "total_tokens": 2}

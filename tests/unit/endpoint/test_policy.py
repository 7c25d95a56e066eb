"""What the virtual model says: valid calls, valid structures, names, termination."""

from __future__ import annotations

import json

import pytest

from windtunnel.endpoint.instance import instance
from windtunnel.endpoint.policy import answer
from windtunnel.endpoint.text import block_keys, pieces, tokens_in, words

TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}, "top": {"type": "integer", "minimum": 3}},
            "required": ["query"],
        },
    },
}
HAND = {"type": "function", "function": {"name": "transfer_to_writer", "parameters": {"type": "object"}}}
USER = {"role": "user", "content": "find it"}
LEDGER = {
    "$defs": {
        "Entry": {
            "type": "object",
            "properties": {"reason": {"type": "string"}, "answer": {"type": "boolean"}},
        }
    },
    "type": "object",
    "properties": {
        "is_request_satisfied": {"$ref": "#/$defs/Entry"},
        "next_speaker": {"type": "string", "enum": ["Coder", "Writer"]},
        "score": {"anyOf": [{"type": "null"}, {"type": "number"}]},
        "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
    },
}


def test_a_tool_is_called_once_for_a_turn_then_text_follows() -> None:
    first = answer([USER], [TOOL], "auto", None, 20)
    (call,) = first.calls
    assert call.name == "search"
    assert json.loads(call.arguments)["top"] == 3
    assert isinstance(json.loads(call.arguments)["query"], str)
    made = {"role": "assistant", "tool_calls": [{"function": {"name": "search"}}]}
    then = answer([USER, made, {"role": "tool", "content": "42"}], [TOOL], "auto", None, 20)
    assert not then.calls
    assert then.text


@pytest.mark.parametrize(("choice", "calls"), [("none", 0), ("required", 1), (None, 1)])
def test_tool_choice(choice: object, calls: int) -> None:
    assert len(answer([USER], [TOOL], choice, None, 20).calls) == calls


def test_a_named_tool_and_hand_offs() -> None:
    named = {"type": "function", "function": {"name": "transfer_to_writer"}}
    assert answer([USER], [TOOL, HAND], named, None, 20).calls[0].name == "transfer_to_writer"
    assert answer([USER], [HAND, TOOL], "auto", None, 20).calls[0].name == "search"
    assert answer([USER], [HAND], "auto", None, 20).calls[0].name == "transfer_to_writer"


def test_structures() -> None:
    value = json.loads(answer([USER], [], None, LEDGER, 20).text)
    assert value["is_request_satisfied"] == {"reason": "reason as asked", "answer": False}
    assert value["next_speaker"] == "Coder"
    assert value["score"] == 1.0
    assert value["items"] == [1, 1]
    loop: dict[str, object] = {"$ref": "#"}
    assert instance(loop) is None


def test_selectors_get_one_name_and_take_turns() -> None:
    ask = {"role": "user", "content": "Read it, then select the next role from ['Ann', 'Bob'] to play."}
    assert answer([ask], [], None, None, 20).text == "Ann"
    assert answer([{"role": "assistant", "content": "x"}, ask], [], None, None, 20).text == "Bob"


def test_a_long_conversation_ends_with_its_word() -> None:
    system = {"role": "system", "content": "Say TERMINATE when done."}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 3
    assert not answer([system, USER], [], None, None, 20).text.endswith("TERMINATE")
    assert answer([system, *turns], [], None, None, 20).text.endswith("TERMINATE")


@pytest.mark.parametrize("count", [1, 2, 7, 150])
def test_texts_have_the_length_asked_for(count: int) -> None:
    text = words(count, "seed")
    assert tokens_in(text) == len(pieces(text)) == pytest.approx(count, abs=1)
    assert "".join(pieces(text)) == text
    assert words(count, "seed") == text


def test_keys_chain() -> None:
    one, two = "a" * 640 + "b" * 100, "a" * 640 + "c" * 100
    keys, other = block_keys(one, 16), block_keys(two, 16)
    assert keys[:10] == other[:10]
    assert keys[10] != other[10]
    assert block_keys("x" + "a" * 640, 16)[1:] != keys[1:]
    assert len(set(keys)) == len(keys)

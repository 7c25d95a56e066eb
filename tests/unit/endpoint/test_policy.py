"""What the virtual model says: valid calls, valid structures, names, termination."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert value["is_request_satisfied"]["answer"] is False
    assert isinstance(value["is_request_satisfied"]["reason"], str)
    assert value["next_speaker"] == "Coder"
    assert value["score"] == 1.0
    assert value["items"] == [1, 1]
    jsonschema.validate(value, LEDGER)
    loop: dict[str, object] = {"$ref": "#"}
    assert instance(loop) is None


def test_selectors_get_one_name_and_take_turns() -> None:
    ask = {"role": "user", "content": "Read it, then select the next role from ['Ann', 'Bob'] to play."}
    assert answer([ask], [], None, None, 20).text == "Ann"
    asked = {"role": "user", "content": "Ann: hello\nselect the next role from ['Ann', 'Bob'] to play."}
    assert answer([asked], [], None, None, 20).text == "Bob"


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


LEDGER_PROMPT = (
    "Who should speak next? (select from: Web, Coder)\n"
    "Answer in JSON: {is_request_satisfied: {reason, answer}}"
)


def test_a_ledger_goes_round_the_team_and_ends() -> None:
    talk: list[dict[str, object]] = []
    seen = []
    for _ in range(6):
        entries = json.loads(
            answer([*talk, {"role": "user", "content": LEDGER_PROMPT}], [], None, None, 40).text
        )
        seen.append((entries["next_speaker"]["answer"], entries["is_request_satisfied"]["answer"]))
        talk.append({"role": "assistant", "content": "go on"})
    assert [name for name, _ in seen] == ["Web", "Coder"] * 3
    assert [done for _, done in seen] == [False] * 4 + [True] * 2


def test_a_swarm_hands_over_to_each_once() -> None:
    hands = [
        {"type": "function", "function": {"name": f"transfer_to_{name}", "parameters": {"type": "object"}}}
        for name in ("flights", "hotels")
    ]
    talk: list[dict[str, object]] = [{"role": "user", "content": "Plan a journey"}]
    assert answer(talk, hands, "auto", None, 20).calls[0].name == "transfer_to_flights"
    talk.append({"role": "user", "content": "Transferred to flights, adopting the role of flights."})
    assert answer(talk, hands, "auto", None, 20).calls[0].name == "transfer_to_hotels"
    talk.append({"role": "user", "content": "Transferred to hotels, adopting the role of hotels."})
    assert not answer(talk, hands, "auto", None, 20).calls


def test_a_manager_delegates_to_each_coworker_then_answers() -> None:
    fields = {name: {"type": "string"} for name in ("task", "context", "coworker")}
    tool = {
        "type": "function",
        "function": {
            "name": "delegate_work_to_coworker",
            "description": "Delegate a task to one of the following coworkers: Senior Analyst, Writer\nThe input",
            "parameters": {"type": "object", "properties": fields, "required": list(fields)},
        },
    }
    talk: list[dict[str, object]] = [USER]
    asked = []
    while calls := answer(talk, [tool], "auto", None, 20).calls:
        asked.append(json.loads(calls[0].arguments)["coworker"])
        function = {"name": calls[0].name, "arguments": calls[0].arguments}
        talk += [
            {"role": "assistant", "tool_calls": [{"function": function}]},
            {"role": "tool", "content": "ok"},
        ]
    assert asked == ["Senior Analyst", "Writer"]


def test_tools_in_words_and_final_answers() -> None:
    told = (
        "Tool Name: look_up\nTool Arguments: {'query': {'type': 'str'}}\nUse: Action: only one name of [look_up]"
        "\nFinal Answer: the answer"
    )
    system = {"role": "system", "content": told}
    said = answer([system, USER], [], None, None, 20).text
    assert "Action: look_up\nAction Input: " in said
    assert json.loads(said.rpartition("Action Input: ")[2]) == {"query": "find it"}
    talk = [system, USER, {"role": "assistant", "content": f"{said}\nObservation: 42"}]
    assert "Final Answer: " in answer(talk, [], None, None, 20).text


def test_coders_write_programs_that_run() -> None:
    system = {"role": "system", "content": "Write a ```python code block and wait for its result."}
    said = answer([system, {"role": "user", "content": "mean of 3, 4 and 8"}], [], None, None, 20).text
    code = said.split("```python\n")[1].split("```")[0]
    printed: list[str] = []
    exec(code, {"print": printed.append})
    assert printed == ["3 figures, mean 5.000, largest 8"]
    talk = [system, USER, {"role": "assistant", "content": said}, {"role": "user", "content": "it printed 5"}]
    assert "```" not in answer(talk, [], None, None, 20).text


def test_lengths_follow_what_is_asked_for() -> None:
    from windtunnel.endpoint.lengths import AnswerLengths

    drawn = [AnswerLengths(300.0).draw(str(seed)) for seed in range(2000)]
    assert sum(drawn) / len(drawn) == pytest.approx(300, rel=0.1)
    assert {AnswerLengths(recorded=(5, 7)).draw(str(seed)) for seed in range(50)} == {5, 7}


bounds = st.integers(-50, 50)
scalars = st.one_of(
    st.builds(lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span}, bounds, bounds.map(abs)),
    st.builds(lambda low: {"type": "number", "exclusiveMinimum": low, "maximum": low + 3}, bounds),
    st.builds(lambda step: {"type": "integer", "multipleOf": step, "minimum": 7}, st.integers(1, 9)),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 60), st.integers(0, 20),
    ),
    st.sampled_from([
        {"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {"const": {"a": 1}},
        {"enum": [3, "x"]}, {"type": "string", "format": "date"}, {},
    ]),
)  # fmt: skip
schemas = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(
            lambda parts, extra: {
                "type": "object", "properties": parts, "required": [*parts, *extra],
                "additionalProperties": True,
            },
            st.dictionaries(st.sampled_from("abcd"), inner, max_size=3), st.lists(st.just("z"), max_size=1),
        ),
        st.builds(lambda part, count: {"type": "array", "items": part, "minItems": count}, inner, st.integers(0, 4)),
        st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner),
        st.builds(lambda one: {"allOf": [one]}, inner),
        st.just({"$ref": "#/$defs/shared"}),
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(schemas, st.integers(-(1 << 63), 1 << 63))
def test_instances_are_valid(schema: dict[str, object], draw: int) -> None:
    whole = {"$defs": {"shared": {"type": "integer", "minimum": 4}}, **schema}
    jsonschema.validate(instance(whole, "some topic", draw), whole)

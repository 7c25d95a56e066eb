"""What the virtual model answers, so that agents proceed. Rules, no model: the same request, the same answer.

In order: a tool call while tools are offered and none was answered since the last user turn; a hand-off where
only hand-off tools are offered; an instance of the schema where one is asked for; one participant's name where a
selector asks for it; else text, which ends with the termination word that the prompt names once the
conversation is long enough.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from windtunnel.endpoint.instance import Schema, instance
from windtunnel.endpoint.text import words

Message = Mapping[str, object]

TURNS_BEFORE_END = 6
HAND_OFF = ("transfer_to_", "handoff_to_")
_SELECT = re.compile(r"select the next (?:role|speaker) from \[([^\]]*)\]", re.IGNORECASE)
_TERMINATE = re.compile(r"\b(TERMINATE|APPROVE)\b")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the answer makes; ``arguments`` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Text or tool calls."""

    text: str
    calls: tuple[ToolCall, ...] = ()

    @property
    def written(self) -> str:
        """All that the model would have to generate."""
        return self.text + "".join(call.name + call.arguments for call in self.calls)


def answer(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, object]],
    tool_choice: object,
    schema: Schema | None,
    length: int,
) -> Answer:
    """The answer to a conversation. ``length``: tokens of a plain text."""
    prompt = "\n".join(content(message) for message in messages)
    call = _call(messages, tools, tool_choice)
    if call is not None:
        return Answer("", (call,))
    if schema is not None:
        return Answer(json.dumps(instance(schema), ensure_ascii=False))
    selection = _SELECT.search(prompt)
    if selection:
        names = re.findall(r"[\w .-]+", selection.group(1))
        spoken = sum(message.get("role") == "assistant" for message in messages)
        named = [name.strip() for name in names if name.strip()]
        if named:
            return Answer(named[spoken % len(named)])
    text = words(length, prompt[-4096:])
    word = _TERMINATE.search(prompt)
    turns = sum(message.get("role") in ("assistant", "user") for message in messages)
    return Answer(f"{text} {word.group(1)}" if word and turns >= TURNS_BEFORE_END else text)


def content(message: Message) -> str:
    """The text of a message; images and other parts count as their type."""
    value = message.get("content")
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [cast("Mapping[str, object]", part) for part in value if isinstance(part, Mapping)]
        return "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts)
    return ""


def _call(
    messages: Sequence[Message], tools: Sequence[Mapping[str, object]], choice: object
) -> ToolCall | None:
    functions = [cast("Mapping[str, object]", tool.get("function") or {}) for tool in tools]
    named = {str(function.get("name")): function for function in functions if function.get("name")}
    if not named or choice == "none":
        return None
    forced = _forced(choice)
    if forced is None and choice != "required" and _answered(messages):
        return None
    name = forced if forced in named else _preferred(list(named), messages)
    schema = cast("Schema", named[name].get("parameters") or {"type": "object", "properties": {}})
    return ToolCall(name, json.dumps(instance(schema), ensure_ascii=False))


def _forced(choice: object) -> str | None:
    if isinstance(choice, Mapping):
        function = choice.get("function")
        return str(function.get("name")) if isinstance(function, Mapping) else None
    return None


def _answered(messages: Sequence[Message]) -> bool:
    """Whether a tool was already called for the last turn of a user."""
    for message in reversed(messages):
        if message.get("role") == "tool":
            return True
        if message.get("role") == "user":
            return False
    return False


def _preferred(names: Sequence[str], messages: Sequence[Message]) -> str:
    """Ordinary tools before hand-offs, those called least first."""
    said = json.dumps([message.get("tool_calls") for message in messages], default=str)
    return min(names, key=lambda name: (name.startswith(HAND_OFF), said.count(name), names.index(name)))

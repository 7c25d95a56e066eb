"""What the virtual model answers, so that agents proceed. Rules, no model: the same request, the same answer.

The first rule that has an answer gives it: a ledger or an instance of a schema where one is asked for; a selector's
one name; a tool, a delegation or a hand-off while one is due; the text protocol for tools; a program where code is
asked for; else text, which ends with the word that ends the conversation once it is long enough.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from windtunnel.endpoint import teams
from windtunnel.endpoint.conversation import Conversation, Message
from windtunnel.endpoint.instance import Schema, instance
from windtunnel.endpoint.text import words

__all__ = ["Answer", "Message", "ToolCall", "answer"]

Say = Callable[[int], str]
TOOL_ROUNDS = 2
"""Most tool answers that the model asks for in one turn."""


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
    say: Say | None = None,
    draw: int = 0,
) -> Answer:
    """The answer to a conversation. ``length``: tokens of a plain text; ``say`` writes it instead of drawn words.

    ``draw``: which of several answers; they differ in their words, not in what rules decide.
    """
    talk = Conversation(messages, draw)
    structured = teams.ledger(talk, schema, length) or teams.structure(talk, schema, length)
    if structured is not None:
        return Answer(structured)
    call = _call(talk, tools, tool_choice)
    if call is not None:
        return Answer("", (call,))
    name = teams.next_speaker(talk)
    if name is not None:
        return Answer(name)
    written = teams.written_call(talk)
    if written is not None:
        return Answer(written)
    text = say(length) if say is not None else words(length, talk.seed)
    if teams.wants_code(talk):
        text = f"{text}\n\n{teams.program(talk)}"
    word = teams.last_word(talk)
    text = f"{text} {word}" if word else text
    return Answer(
        f"Thought: I now know the final answer\nFinal Answer: {text}" if teams.final(talk) else text
    )


def _call(talk: Conversation, tools: Sequence[Mapping[str, object]], choice: object) -> ToolCall | None:
    functions = [cast("Mapping[str, object]", tool.get("function") or {}) for tool in tools]
    named = {str(function.get("name")): function for function in functions if function.get("name")}
    if not named or choice == "none":
        return None
    name = _forced(choice)
    if name not in named:
        name = _due(talk, named, must=choice == "required")
    if name is None:
        return None
    found = instance(cast("Schema", named[name].get("parameters") or {"type": "object"}), talk.topic)
    if teams.delegates(named[name]) and isinstance(found, dict):
        found["coworker"] = teams.coworker(talk, named[name]) or teams.coworkers(named[name])[0]
    return ToolCall(name, json.dumps(found, ensure_ascii=False))


def _forced(choice: object) -> str | None:
    if isinstance(choice, Mapping):
        function = choice.get("function")
        return str(function.get("name")) if isinstance(function, Mapping) else None
    return None


def _due(talk: Conversation, named: Mapping[str, Mapping[str, object]], *, must: bool) -> str | None:
    """The tool to call now: ordinary ones, then delegations to coworkers, then hand-offs; None: say something."""
    made = [name for name, _ in talk.calls]
    hand_offs = [name for name in named if teams.hands_off(name)]
    delegations = [name for name in named if teams.delegates(named[name])]
    ordinary = [name for name in named if name not in hand_offs and name not in delegations]
    rounds = min(TOOL_ROUNDS, len(ordinary))
    if ordinary and (must or talk.answered_since_asked < rounds):
        return min(ordinary, key=lambda name: (made.count(name), ordinary.index(name)))
    for name in delegations:
        work = not re.search(r"question", name, re.IGNORECASE)
        if must or (work and teams.coworker(talk, named[name]) is not None):
            return name
    return teams.hand_off(talk, hand_offs) or (next(iter(named)) if must else None)

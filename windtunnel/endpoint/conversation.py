"""What can be read off a conversation: who is asked, what for, and how far it has come."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast

from windtunnel.endpoint.text import drawn

Message = Mapping[str, object]

TOPIC_WORDS = 8
_SENTENCE = re.compile(r"[^\s.:;,!?\"'\[\]{}()<>#*`|]+")


def content(message: Message) -> str:
    """The text of a message; images and other parts count as their type."""
    value = message.get("content")
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [cast("Mapping[str, object]", part) for part in value if isinstance(part, Mapping)]
        return "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts)
    return ""


class Conversation:
    """Messages of one request, with questions about them; ``draw``: which of several answers is wanted."""

    def __init__(self, messages: Sequence[Message], draw: int = 0) -> None:
        self.messages = tuple(messages)
        self.draw = draw

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The text of every message."""
        return tuple(content(message) for message in self.messages)

    @cached_property
    def whole(self) -> str:
        """All of it."""
        return "\n".join(self.texts)

    @property
    def last(self) -> str:
        """The last message's text."""
        return self.texts[-1] if self.texts else ""

    @cached_property
    def system(self) -> str:
        """What the agent was told to be; without such a message, the first one."""
        told = [t for m, t in zip(self.messages, self.texts) if m.get("role") in ("system", "developer")]
        return "\n".join(told) or (self.texts[0] if self.texts else "")

    def count(self, *roles: str) -> int:
        """Messages of these roles."""
        return sum(message.get("role") in roles for message in self.messages)

    @cached_property
    def own_texts(self) -> int:
        """Times that the agent itself answered in words."""
        return sum(
            message.get("role") == "assistant" and not message.get("tool_calls") for message in self.messages
        )

    @cached_property
    def calls(self) -> tuple[tuple[str, str], ...]:
        """Name and arguments of all calls so far."""
        made = []
        for message in self.messages:
            for call in cast("list[object]", message.get("tool_calls") or []):
                function = call.get("function") if isinstance(call, Mapping) else None
                if isinstance(function, Mapping):
                    made.append((str(function.get("name")), str(function.get("arguments"))))
        return tuple(made)

    @cached_property
    def answered_since_asked(self) -> int:
        """Tool answers since the last message of a user."""
        count = 0
        for message in reversed(self.messages):
            if message.get("role") == "user":
                break
            count += message.get("role") == "tool"
        return count

    @cached_property
    def topic(self) -> str:
        """A few words of what was asked first."""
        asked = next((t for m, t in zip(self.messages, self.texts) if m.get("role") == "user" and t), "")
        return " ".join(_SENTENCE.findall(asked.removeprefix("Current Task:"))[:TOPIC_WORDS])

    @property
    def seed(self) -> str:
        """What tells this conversation, and this answer to it, from others, for drawing words."""
        return drawn(json.dumps(self.texts[-2:], ensure_ascii=False)[-4096:], self.draw)

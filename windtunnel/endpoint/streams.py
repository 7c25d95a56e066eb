"""The events of a streamed answer: at once, with the first token, for each token, after the last."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.told import Reply, Usage
from windtunnel.endpoint.told_responses import Response


@dataclass(frozen=True, slots=True)
class Exchange:
    """An answer in tokens; ``cut``: it ran into the client's limit. ``usage``: of the whole body, known at its end.

    ``own``: of this answer and its prompt. ``before``: a prompt that was asked to be repeated.
    """

    answer: Answer
    tokens: list[str]
    cut: bool
    usage: Callable[[], Usage]
    own: Callable[[], Usage]
    before: str = ""

    @property
    def text(self) -> str:
        """All that is said."""
        return "".join(self.tokens)

    @property
    def finish(self) -> str:
        """Why it ends, in OpenAI's words."""
        return "length" if self.cut else "tool_calls" if self.answer.calls else "stop"


class Events(Protocol):
    """Text to send for one choice, in five places."""

    def at_once(self) -> str:
        """What comes before the model has said anything."""
        ...

    def before(self) -> str:
        """What comes with the first token; clients take it for the first token."""
        ...

    def tokens(self, start: int, end: int) -> str:
        """Tokens from ``start`` to before ``end``, one event each."""
        ...

    def after(self) -> str:
        """What comes after the last token of this choice."""
        ...

    def last(self) -> str:
        """What ends the stream, once."""
        ...


class _ReplyEvents:
    def __init__(self, exchange: Exchange, reply: Reply, wanted: Asked) -> None:
        self._exchange, self._reply, self._wanted = exchange, reply, wanted
        self._head, self._tail = reply.frame_of_text()
        self._calls = bool(exchange.answer.calls)

    def at_once(self) -> str:
        return ""

    def before(self) -> str:
        opening = self._reply.opening() if self._reply.chat else ""
        if not self._exchange.before:
            return opening
        return opening + self._head + json.dumps(self._exchange.before) + self._tail

    def tokens(self, start: int, end: int) -> str:
        if self._calls:
            return ""
        if self._wanted.continuous_usage:
            return "".join([self._counted(place) for place in range(start, end)])
        head, tail = self._head, self._tail
        return "".join([head + json.dumps(token) + tail for token in self._exchange.tokens[start:end]])

    def after(self) -> str:
        exchange, reply = self._exchange, self._reply
        calls = reply.calls(exchange.answer) if self._calls else ""
        return calls + reply.closing(exchange.finish)

    def last(self) -> str:
        return self._reply.last(self._exchange.usage() if self._wanted.include_usage else None)

    def _counted(self, place: int) -> str:
        """The event of one token, with the usage of this choice so far."""
        own = self._exchange.own()
        return self._reply.text(self._exchange.tokens[place], Usage(own.prompt, own.cached, place + 1))


class _ResponseEvents:
    def __init__(self, exchange: Exchange, reply: Response) -> None:
        self._exchange, self._reply = exchange, reply

    def at_once(self) -> str:
        return "".join(self._reply.opening(self._exchange.answer))

    def before(self) -> str:
        return ""

    def tokens(self, start: int, end: int) -> str:
        if self._exchange.answer.calls:
            return ""
        return "".join([self._reply.delta(token) for token in self._exchange.tokens[start:end]])

    def after(self) -> str:
        exchange = self._exchange
        text = "".join(exchange.tokens)
        return "".join(self._reply.closing(exchange.answer, text, exchange.cut, exchange.usage()))

    def last(self) -> str:
        return ""


def of_reply(exchange: Exchange, reply: Reply, wanted: Asked) -> Events:
    """Events of /v1/chat/completions and /v1/completions; ``wanted``: says what usage they carry."""
    return _ReplyEvents(exchange, reply, wanted)


def of_response(exchange: Exchange, reply: Response) -> Events:
    """Events of /v1/responses."""
    return _ResponseEvents(exchange, reply)

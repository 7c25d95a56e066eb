"""Answers of /v1/chat/completions and /v1/completions in OpenAI's format: bodies, events, usage, errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windtunnel.endpoint.policy import Answer

Json = dict[str, object]
DONE = "data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one exchange."""

    prompt: int
    cached: int
    completion: int

    def to_dict(self) -> Json:
        """The usage object."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(frozen=True, slots=True)
class Reply:
    """The frame of one choice; ``index``: which of those that a body asked for."""

    name: str
    created: int
    model: str
    chat: bool
    index: int = 0

    def whole(self, choices: Sequence[Json], usage: Usage) -> Json:
        """The body without streaming, with all its choices."""
        return self._frame("chat.completion" if self.chat else "text_completion", choices, usage)

    def choice(self, answer: Answer, text: str, finish: str) -> Json:
        """This choice of the body."""
        if not self.chat:
            return {"index": self.index, "text": text, "logprobs": None, "finish_reason": finish}
        message: Json = {"role": "assistant", "content": None if answer.calls else text}
        if answer.calls:
            message["tool_calls"] = self._calls(answer)
        return {"index": self.index, "message": message, "logprobs": None, "finish_reason": finish}

    def opening(self) -> str:
        """The first event of a chat: who speaks."""
        delta: Json = {"role": "assistant", "content": ""}
        return self._event([{"index": self.index, "delta": delta, "logprobs": None, "finish_reason": None}])

    def frame_of_text(self) -> tuple[str, str]:
        """What stands before and after the quoted text in every event that only carries text."""
        mark = "\x00"
        before, after = self.text(mark).split(json.dumps(mark))
        return before, after

    def text(self, said: str, usage: Usage | None = None) -> str:
        """An event that only carries text, and ``usage`` where it comes with each."""
        delta: Json = {"delta": {"content": said}} if self.chat else {"text": said}
        return self._event([{"index": self.index, **delta, "logprobs": None, "finish_reason": None}], usage)

    def closing(self, finish: str) -> str:
        """The event that says why the answer ended."""
        delta: Json = {"delta": {}} if self.chat else {"text": ""}
        return self._event([{"index": self.index, **delta, "logprobs": None, "finish_reason": finish}])

    def calls(self, answer: Answer) -> str:
        """The event that carries tool calls."""
        calls = [{"index": index, **call} for index, call in enumerate(self._calls(answer))]
        delta: Json = {"tool_calls": calls}
        return self._event([{"index": self.index, "delta": delta, "logprobs": None, "finish_reason": None}])

    def last(self, usage: Usage | None) -> str:
        """The end of the stream, after usage where it was asked for: an event without choices."""
        return (self._event([], usage) if usage else "") + DONE

    def _calls(self, answer: Answer) -> list[Json]:
        return [
            {
                "id": f"call_{self.name[-12:]}_{self.index}_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(answer.calls)
        ]

    def _event(self, choices: Sequence[Json], usage: Usage | None = None) -> str:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return f"data: {json.dumps(self._frame(kind, choices, usage))}\n\n"

    def _frame(self, kind: str, choices: Sequence[Json], usage: Usage | None) -> Json:
        body: Json = {
            "id": self.name, "object": kind, "created": self.created, "model": self.model, "choices": choices,
        }  # fmt: skip
        return {**body, "usage": usage.to_dict()} if usage else body


def error(message: str, kind: str, code: str | int | None, param: str | None = None) -> Mapping[str, object]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}

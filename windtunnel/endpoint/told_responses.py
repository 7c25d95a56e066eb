"""Answers of /v1/responses in OpenAI's format: the response object and the events of its stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.told import Json, Usage


@dataclass(slots=True)
class Response:
    """The frame of one response; numbers its events."""

    name: str
    created: int
    model: str
    _number: int = field(default=-1)

    def whole(self, answer: Answer, text: str, cut: bool, usage: Usage | None, status: str = "") -> Json:
        """The response object. ``cut``: it ran into the most tokens that were allowed."""
        reason: Json | None = {"reason": "max_output_tokens"} if cut else None
        return {
            "id": self.name, "object": "response", "created_at": self.created, "model": self.model,
            "status": status or ("incomplete" if cut else "completed"), "incomplete_details": reason,
            "error": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
            "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [],
            "output": self._items(answer, text) if usage else [],
            "usage": _usage(usage) if usage else None,
        }  # fmt: skip

    def opening(self, answer: Answer) -> Iterator[str]:
        """Events before the first token."""
        yield self._event("response.created", response=self.whole(answer, "", False, None, "in_progress"))
        yield self._event("response.in_progress", response=self.whole(answer, "", False, None, "in_progress"))
        if not answer.calls:
            item = {**self._items(answer, "")[0], "status": "in_progress", "content": []}
            yield self._event("response.output_item.added", output_index=0, item=item)
            yield self._part("response.content_part.added", part=_text(""))

    def delta(self, text: str) -> str:
        """An event with text."""
        return self._part("response.output_text.delta", delta=text, logprobs=[])

    def closing(self, answer: Answer, text: str, cut: bool, usage: Usage) -> Iterator[str]:
        """Events after the last token."""
        items = self._items(answer, text)
        if not answer.calls:
            yield self._part("response.output_text.done", text=text, logprobs=[])
            yield self._part("response.content_part.done", part=_text(text))
            yield self._event("response.output_item.done", output_index=0, item=items[0])
        for index, (item, call) in enumerate(zip(items, answer.calls, strict=False)):
            started = {**item, "arguments": "", "status": "in_progress"}
            place: Json = {"output_index": index, "item_id": item["id"]}
            yield self._event("response.output_item.added", output_index=index, item=started)
            yield self._event("response.function_call_arguments.delta", **place, delta=call.arguments)
            yield self._event(
                "response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments
            )
            yield self._event("response.output_item.done", output_index=index, item=item)
        kind = "response.incomplete" if cut else "response.completed"
        yield self._event(kind, response=self.whole(answer, text, cut, usage))

    def _items(self, answer: Answer, text: str) -> list[Json]:
        tail = self.name[-12:]
        if not answer.calls:
            return [
                {"id": f"msg_{tail}", "type": "message", "role": "assistant", "status": "completed",
                 "content": [_text(text)]}
            ]  # fmt: skip
        return [
            {"id": f"fc_{tail}_{index}", "type": "function_call", "call_id": f"call_{tail}_{index}",
             "name": call.name, "arguments": call.arguments, "status": "completed"}
            for index, call in enumerate(answer.calls)
        ]  # fmt: skip

    def _part(self, kind: str, **named: object) -> str:
        place: Json = {"item_id": f"msg_{self.name[-12:]}", "output_index": 0, "content_index": 0}
        return self._event(kind, **place, **named)

    def _event(self, kind: str, **named: object) -> str:
        self._number += 1
        body = json.dumps({"type": kind, "sequence_number": self._number, **named})
        return f"event: {kind}\ndata: {body}\n\n"


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt, "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.completion, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.completion,
    }  # fmt: skip

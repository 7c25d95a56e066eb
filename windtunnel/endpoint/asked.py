"""Bodies of OpenAI requests, read with care: every mistake is named with the field it is in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from windtunnel.endpoint.instance import Schema
from windtunnel.endpoint.policy import Message

OUTPUT_MAX = 1 << 20


class BadBody(Exception):
    """A request that cannot be understood. ``param``: the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A chat or text completion, understood.

    Attributes:
        max_tokens: 0 when the client leaves it to the model. exact: ignore_eos, so exactly max_tokens.
    """

    model: str
    messages: tuple[Message, ...]
    prompt: str
    tools: tuple[Mapping[str, object], ...] = ()
    tool_choice: object = None
    schema: Schema | None = None
    max_tokens: int = 0
    exact: bool = False
    stream: bool = False
    include_usage: bool = False
    prompt_tokens: int = 0  # where the prompt came as token ids


def chat(raw: bytes) -> Asked:
    """A body of /v1/chat/completions. Raises BadBody."""
    body = _object(raw)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadBody("messages must be a list with at least one message", "messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadBody(f"messages[{index}] must be an object with a role", f"messages[{index}]")
        if not isinstance(message.get("content"), (str, list, type(None))):
            raise BadBody(f"messages[{index}].content must be text or a list", f"messages[{index}].content")
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadBody("tools must be a list of objects", "tools")
    plain = cast("list[Message]", messages)
    prompt = json.dumps([tools, plain], ensure_ascii=False, sort_keys=True)
    return _common(body, tuple(plain), prompt, tuple(tools), body.get("tool_choice"), _schema(body), 0)


def completion(raw: bytes) -> Asked:
    """A body of /v1/completions with one prompt. Raises BadBody."""
    body = _object(raw)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    tokens = 0
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        tokens = len(prompt)
        prompt = "".join(f"{token:04x}"[-4:] for token in prompt)
    if not isinstance(prompt, str) or not prompt:
        raise BadBody("prompt must be one text or one list of token ids", "prompt")
    return _common(body, ({"role": "user", "content": prompt},), prompt, (), None, None, tokens)


def _common(
    body: Mapping[str, object], messages: tuple[Message, ...], prompt: str,
    tools: tuple[Mapping[str, object], ...], choice: object, schema: Schema | None, tokens: int,
) -> Asked:  # fmt: skip
    model = body.get("model", "")
    if not isinstance(model, str):
        raise BadBody("model must be text", "model")
    most = _count(body, "max_completion_tokens") or _count(body, "max_tokens")
    if body.get("n") not in (None, 1):
        raise BadBody("n must be 1", "n")
    stream = body.get("stream") or False
    options = body.get("stream_options") or {}
    if not isinstance(stream, bool):
        raise BadBody("stream must be true or false", "stream")
    if not isinstance(options, dict):
        raise BadBody("stream_options must be an object", "stream_options")
    return Asked(
        model=model,
        messages=messages,
        prompt=prompt,
        tools=tools,
        tool_choice=choice,
        schema=schema,
        max_tokens=most,
        exact=body.get("ignore_eos") is True or (_count(body, "min_tokens") >= most > 0),
        stream=stream,
        include_usage=options.get("include_usage") is True,
        prompt_tokens=tokens,
    )


def _object(raw: bytes) -> dict[str, object]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadBody(f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadBody("the body must be a JSON object")
    return body


def _count(body: Mapping[str, object], name: str) -> int:
    value = body.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= OUTPUT_MAX:
        raise BadBody(f"{name} must be a whole number from 1 to {OUTPUT_MAX}", name)
    if value == 0 and name != "min_tokens":
        raise BadBody(f"{name} must be at least 1", name)
    return value


def _schema(body: Mapping[str, object]) -> Schema | None:
    wanted = body.get("response_format")
    if wanted is None:
        return None
    if not isinstance(wanted, dict):
        raise BadBody("response_format must be an object", "response_format")
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    if wanted.get("type") != "json_schema":
        return None
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        raise BadBody("response_format.json_schema.schema must be an object", "response_format")
    return schema

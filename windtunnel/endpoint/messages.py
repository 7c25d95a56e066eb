"""A body of Anthropic's /v1/messages as the chat it stands for, which vLLM translates likewise. With vLLM only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from windtunnel.endpoint import asked, bodies
from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.bodies import Count, Object, Text
from windtunnel.endpoint.images import images_in

Parts = list[dict[str, Any]]
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class Turn(msgspec.Struct, kw_only=True):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Object]


class Tool(msgspec.Struct, kw_only=True):
    """A tool; ``input_schema`` is a JSON schema."""

    name: Text
    input_schema: Object
    description: str | None = None


class Choice(msgspec.Struct, kw_only=True):
    """Whether to call a tool, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class Output(msgspec.Struct, kw_only=True):
    """The form of the answer: ``format.schema`` is a JSON schema."""

    format: Object | None = None


class MessagesBody(msgspec.Struct, kw_only=True):
    """/v1/messages."""

    model: Text
    messages: Annotated[list[Turn], Meta(min_length=1)]
    max_tokens: Count
    system: str | list[Object] | None = None
    tools: list[Tool] | None = None
    tool_choice: Choice | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    output_config: Output | None = None


def message(raw: bytes) -> list[Asked]:
    """The one answer that a body asks for. Raises BadBody."""
    body = bodies.read(raw, MessagesBody)
    turns: Parts = []
    if body.system:
        turns.append({"role": "system", "content": _text(body.system)})
    for turn in body.messages:
        turns += _turns(turn)
    tools = [{"type": "function", "function": _function(tool)} for tool in body.tools or ()]
    choice: object = _CHOICES.get(body.tool_choice.type) if body.tool_choice else None
    if body.tool_choice and body.tool_choice.type == "tool":
        choice = {"type": "function", "function": {"name": body.tool_choice.name}}
    asked.check_choice(choice, {tool.name for tool in body.tools or ()})
    schema = body.output_config.format if body.output_config else None
    wanted = Asked(
        model=body.model,
        messages=tuple(turns),
        prompt=asked.rendered(tools, turns),
        tools=tuple(tools),
        tool_choice=choice,
        schema=schema.get("schema") if schema else None,
        max_tokens=body.max_tokens,
        stop=tuple(body.stop_sequences or ()),
        stream=bool(body.stream),
        images=images_in(turns),
    )
    return [wanted]


def plain(body: dict[str, Any]) -> None:
    """Take out of a body what has been answered: the form, and a choice that vLLM would need a grammar for."""
    if isinstance(body.get("output_config"), dict):
        body["output_config"].pop("format", None)
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in ("any", "tool"):
        body["tool_choice"] = {"type": "auto"}


def pictures_as(body: Mapping[str, Any], shown: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Put what ``shown`` makes of a picture, as OpenAI writes it, in the place of each."""
    for turn in body.get("messages") or ():
        parts = turn.get("content")
        for part in _listed(parts):
            _replace(part.get("content"), shown)
        _replace(parts, shown)


def _replace(parts: object, shown: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for place, part in enumerate(parts if isinstance(parts, list) else ()):
        found = picture(part) if isinstance(part, dict) else None
        if found is not None:
            cast("list[Any]", parts)[place] = shown(found)


def picture(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """A picture as OpenAI writes it; None: the part is none."""
    source = part.get("source")
    if part.get("type") != "image" or not isinstance(source, Mapping):
        return None
    address = f"data:{source.get('media_type', 'image/jpeg')};base64,{source.get('data', '')}"
    return {"type": "image_url", "image_url": {"url": source.get("url", address)}}


def _function(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}


def _turns(turn: Turn) -> Parts:
    """A message's results of tools are messages of their own in a chat."""
    if isinstance(turn.content, str):
        return [{"role": turn.role, "content": turn.content}]
    results = [
        {"role": "tool", "content": _seen(part.get("content")), "tool_call_id": part.get("tool_use_id")}
        for part in turn.content
        if part.get("type") == "tool_result"
    ]
    calls = [
        {
            "type": "function",
            "function": {"name": part.get("name"), "arguments": json.dumps(part.get("input"))},
        }
        for part in turn.content
        if part.get("type") == "tool_use"
    ]
    said = [found for part in turn.content if (found := _part(part)) is not None]
    own: Parts = [{"role": turn.role, "content": said, "tool_calls": calls}] if calls else []
    if said and not calls:
        own = [{"role": turn.role, "content": said}]
    return [*results, *own]


def _part(part: Mapping[str, Any]) -> dict[str, Any] | None:
    if part.get("type") == "text":
        return {"type": "text", "text": str(part.get("text") or "")}
    return picture(part)


def _seen(content: object) -> object:
    """What a tool answered."""
    if not isinstance(content, list):
        return str(content or "")
    return [found for part in _listed(content) if (found := _part(part)) is not None]


def _text(content: str | list[Object]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text") or "") for part in content)


def _listed(content: object) -> list[Any]:
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []

"""Request bodies as types: what is read is checked against them, and the OpenAPI description is made from them.

Fields that clients send and nobody needs here are let through unread.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

OUTPUT_MAX = 1 << 20
INPUTS_MAX, DIMENSIONS_MAX = 2048, 8192

Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1, le=OUTPUT_MAX)]
Object = dict[str, Any]
Ids = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]


class BadBody(Exception):
    """A request that cannot be understood. ``param``: the field; ``code`` and ``status`` as OpenAI's."""

    def __init__(
        self, message: str, param: str | None = None, code: str = "invalid_value", status: int = 400
    ) -> None:
        super().__init__(message)
        self.param, self.code, self.status = param, code, status


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message of a chat."""

    role: Text
    content: str | list[Object] | None = None
    name: str | None = None
    tool_calls: list[Object] | None = None
    tool_call_id: str | None = None


class Function(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A function that may be called; ``parameters`` is a JSON schema."""

    name: Text
    description: str | None = None
    parameters: Object | None = None


class Tool(msgspec.Struct, kw_only=True):
    """A tool of a chat."""

    function: Function
    type: Literal["function"] = "function"


class StreamOptions(msgspec.Struct, kw_only=True):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None


class Sampling(msgspec.Struct, kw_only=True):
    """Fields that all generating bodies share."""

    model: str | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    ignore_eos: bool | None = None


class ChatBody(Sampling, kw_only=True):
    """/v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | Object | None = None
    response_format: Object | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=OUTPUT_MAX)] | None = None
    n: Literal[1] | None = None
    stop: str | list[str] | None = None
    stream_options: StreamOptions | None = None


class CompletionBody(Sampling, kw_only=True):
    """/v1/completions with one prompt: a text, token ids, or a list with one of either."""

    prompt: Text | Annotated[list[Any], Meta(min_length=1)]
    max_tokens: Count | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=OUTPUT_MAX)] | None = None
    n: Literal[1] | None = None
    stop: str | list[str] | None = None
    stream_options: StreamOptions | None = None


class ResponseBody(Sampling, kw_only=True):
    """/v1/responses."""

    input: Text | Annotated[list[Object], Meta(min_length=1)]
    instructions: str | None = None
    tools: list[Object] | None = None
    tool_choice: Literal["none", "auto", "required"] | Object | None = None
    text: Object | None = None
    max_output_tokens: Count | None = None


class EmbeddingBody(msgspec.Struct, kw_only=True):
    """/v1/embeddings."""

    input: Text | Annotated[list[Any], Meta(min_length=1, max_length=INPUTS_MAX)]
    model: str | None = None
    dimensions: Annotated[int, Meta(ge=1, le=DIMENSIONS_MAX)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


BODIES: dict[str, type[Sampling] | type[EmbeddingBody]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/responses": ResponseBody,
    "/v1/embeddings": EmbeddingBody,
}
Body = TypeVar("Body", ChatBody, CompletionBody, ResponseBody, EmbeddingBody)
_AT = re.compile(r"^(.*?)(?: - at `\$\.?(.*)`)?$", re.DOTALL)


def read(raw: bytes, kind: type[Body]) -> Body:
    """The body, checked. Raises BadBody with the field it is about."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        found = _AT.match(str(error))
        what, where = found.groups() if found else (str(error), None)
        missing = re.search(r"missing required field `(\w+)`", what)
        param = ".".join(filter(None, [where, missing.group(1) if missing else None])) or None
        raise BadBody(f"{param or 'body'}: {what[:1].lower()}{what[1:]}", param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(f"the body is no JSON: {error}", code="invalid_json") from None

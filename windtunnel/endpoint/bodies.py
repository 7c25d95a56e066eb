"""Request bodies as types: what is read is checked against them, and the OpenAPI description is made from them.

Fields that nobody needs here (`user`, `top_k`, penalties) are let through unread; those without which the answer would
not be what was asked for are refused (``unoffered``).
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from windtunnel.endpoint.unoffered import unoffered

OUTPUT_MAX = 1 << 20
INPUTS_MAX, DIMENSIONS_MAX = 2048, 8192
N_MAX = 128
"""Most choices of one prompt, OpenAI's own bound of ``n``."""
CHOICES_MAX = 1024
"""Most choices that one body may ask for, over all its prompts."""

Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1, le=OUTPUT_MAX)]
Choices = Annotated[int, Meta(ge=1, le=N_MAX)]
Seed = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Object = dict[str, Any]
NoLogprobs = Annotated[bool | None, Meta(extra_json_schema={"enum": [False, None]})]
NoCount = Annotated[int | None, Meta(extra_json_schema={"enum": [None]})]
NoTop = Annotated[int | None, Meta(extra_json_schema={"enum": [0, None]})]
"""Probabilities that may be declined, not asked for: `refuse_logprobs`."""
LOGPROBS_PART = "message.output_text.logprobs"
Included = Annotated[list[str] | None, Meta(extra_json_schema={"items": {"not": {"const": LOGPROBS_PART}}})]
Ids = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]


UNSUPPORTED = "unsupported_parameter"
"""OpenAI's code for what a model does not offer."""


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


class JsonSchema(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The schema of a structured answer."""

    schema: Object | None = None
    name: str | None = None


class ResponseFormat(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The form of an answer; in /v1/responses the schema stands beside the type."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema: Object | None = None


class TextOptions(msgspec.Struct, kw_only=True):
    """``text`` of /v1/responses."""

    format: ResponseFormat | None = None


class Item(msgspec.Struct, kw_only=True):
    """One item of a responses input: a message, a call, or a call's output; others are passed over."""

    type: str = "message"
    role: Text = "user"
    content: str | list[Object] | None = None
    name: str | None = None
    arguments: str | None = None
    call_id: str | None = None
    output: str | list[Object] | None = None


class StreamOptions(msgspec.Struct, kw_only=True):
    """What a stream carries besides the answer; ``continuous_usage_stats``: vLLM's, usage with every event."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class StructuredOutputs(msgspec.Struct, kw_only=True):
    """vLLM's own way to ask for a form: a JSON schema, a regular expression, or one of some texts."""

    json: str | Object | None = None
    json_object: bool | None = None
    regex: Text | None = None
    choice: Annotated[list[Text], Meta(min_length=1)] | None = None


class Sampling(msgspec.Struct, kw_only=True):
    """Fields that all generating bodies share."""

    model: str | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    ignore_eos: bool | None = None
    cache_salt: Text | None = None


class Several(Sampling, kw_only=True):
    """Fields of the bodies that may ask for more than one answer."""

    n: Choices | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=OUTPUT_MAX)] | None = None
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None


class ChatBody(Several, kw_only=True):
    """/v1/chat/completions."""

    logprobs: NoLogprobs = None
    top_logprobs: NoTop = None
    prompt_logprobs: NoCount = None

    messages: Annotated[list[Message], Meta(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | Object | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None


class CompletionBody(Several, kw_only=True):
    """/v1/completions: a text, token ids, or a list of either, each a prompt of its own."""

    logprobs: NoCount = None
    prompt_logprobs: NoCount = None

    prompt: Text | Annotated[list[Any], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0, le=OUTPUT_MAX)] | None = None
    echo: bool | None = None


class ResponseBody(Sampling, kw_only=True):
    """/v1/responses."""

    top_logprobs: NoTop = None
    include: Included = None

    input: Text | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[Object] | None = None
    tool_choice: Literal["none", "auto", "required"] | Object | None = None
    text: TextOptions | None = None
    max_output_tokens: Count | None = None


class EmbeddingBody(msgspec.Struct, kw_only=True):
    """/v1/embeddings."""

    input: Text | Annotated[list[Any], Meta(min_length=1, max_length=INPUTS_MAX)]
    model: str | None = None
    dimensions: Annotated[int, Meta(ge=1, le=DIMENSIONS_MAX)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


def refuse_logprobs(body: ChatBody | CompletionBody | ResponseBody) -> None:
    """Raises BadBody where probabilities are asked for: none are computed, and made-up ones would be taken for some."""
    wanted = ""
    if isinstance(body, ResponseBody):
        wanted = "top_logprobs" if body.top_logprobs else ""
        wanted = "include" if LOGPROBS_PART in (body.include or ()) else wanted
    elif body.prompt_logprobs is not None:
        wanted = "prompt_logprobs"
    elif isinstance(body, CompletionBody):
        wanted = "logprobs" if body.logprobs is not None else ""
    else:
        wanted = "logprobs" if body.logprobs else "top_logprobs" if body.top_logprobs else ""
    if wanted:
        what = f"{wanted}: the model is virtual, its tokens have no probabilities; leave `{wanted}` out"
        raise BadBody(what, wanted, code=UNSUPPORTED)


IDS_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
TEXTS_SCHEMA = {
    "type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string", "minLength": 1}, IDS_SCHEMA]},
}  # fmt: skip
"""What lists of prompts and inputs may hold: unions of lists are beyond the types above."""


def token_ids(given: object) -> list[int] | None:
    """The token ids that a list holds; None where it is none."""
    if not isinstance(given, list) or not given:
        return None
    ids = [int(one) for one in given if type(one) in (int, float) and one >= 0 and one == int(one)]
    return ids if len(ids) == len(given) else None


BODIES: dict[str, type[Sampling] | type[EmbeddingBody]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/responses": ResponseBody,
    "/v1/embeddings": EmbeddingBody,
}
Body = TypeVar("Body", bound=msgspec.Struct)
_AT = re.compile(r"^(.*?)(?: - at `\$\.?(.*)`)?$", re.DOTALL)


def read(raw: bytes, kind: type[Body], *, native: bool = False) -> Body:
    """The body, checked; ``native``: for an engine without token ids. Raises BadBody with the field it is about."""
    try:
        body = json.loads(raw, parse_float=_number, parse_constant=_no_number)
        if b"\\u" in raw or b"\xed" in raw:  # half a surrogate pair is no text, though JSON can write it
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadBody(f"the body is no JSON: {error}", code="invalid_json") from None
    found = unoffered(body, native=native)
    if found is not None:
        raise BadBody(f"{found[0]}: {found[1]}", found[0], code=UNSUPPORTED)
    try:
        return msgspec.convert(body, type=kind)
    except msgspec.ValidationError as error:
        placed = _AT.match(str(error))
        what, where = placed.groups() if placed else (str(error), None)
        missing = re.search(r"missing required field `(\w+)`", what)
        param = ".".join(filter(None, [where, missing.group(1) if missing else None])) or None
        raise BadBody(f"{param or 'body'}: {what[:1].lower()}{what[1:]}", param) from None


def _number(written: str) -> float:
    """JSON knows one kind of number: 5.0 is a whole one."""
    value = float(written)
    return int(value) if value.is_integer() else value


def _no_number(written: str) -> float:
    raise ValueError(f"{written} is no number of JSON")

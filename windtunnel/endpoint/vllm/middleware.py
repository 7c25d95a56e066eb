"""In front of vLLM's server (``--middleware``): what the virtual model will say travels with the request.

vLLM then tokenises, schedules, detokenises and parses as ever. The executor emits the tokens told here, so tool calls
come out of vLLM's own parser. ``response_format`` is answered by the policy and taken out, as the grammar would
refuse tokens that nobody sampled. Embeddings, which a chat model of vLLM does not offer, are answered here.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response

from windtunnel.endpoint import asked, embedding, messages, told
from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.bodies import UNSUPPORTED, BadBody
from windtunnel.endpoint.images import images_in
from windtunnel.endpoint.lengths import AnswerLengths
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.recorder import Recorder
from windtunnel.endpoint.speaker import Speaker
from windtunnel.endpoint.vllm import dialects, settings, several
from windtunnel.endpoint.vllm.progress import EACH, END, FORCED, PICTURES
from windtunnel.endpoint.writer import Writer

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
UNREAD_MAX = 4096
"""Bytes of a body that is not understood on which its answer depends."""
MESSAGES = "/v1/messages"
TOO_MANY = "too_many_answers"
REFUSED_HERE = ("invalid_image", UNSUPPORTED, TOO_MANY)
ANSWERED_HERE = ("response_format", "structured_outputs", "text", "output_config")
"""Fields that vLLM is not shown, so that it finds no mistake in them."""
READERS: dict[str, Callable[[bytes], Sequence[Asked]]] = {
    "/v1/chat/completions": lambda raw: [asked.chat(raw)],
    "/v1/completions": asked.completions,
    "/v1/responses": lambda raw: [asked.response(raw)],
    MESSAGES: messages.message,
}
OTHERS = (
    "/v1/chat/completions/batch", "/v1/decisions", "/v1/systemone", "/inference/v1/generate", "/invocations",
    "/cohere/v2/chat", "/generative_scoring",
)  # fmt: skip
"""Further ways of vLLM's to have a model say something: nobody would say what."""


class Policy:
    """ASGI middleware. The tokenizer is the served model's, found at the first request."""

    def __init__(self, app: Any) -> None:
        self.app = app
        told = settings.read()
        speaker = (
            Speaker(Path(told.answer_with), os.environ[settings.ON], told.overrides, told.chips)
            if told.answer_with
            else None
        )
        self._any_name = told.any_name
        self._writer = Writer(AnswerLengths.told(told.answer_tokens, told.answer_trace), speaker)
        self._recorder = Recorder(Path(told.record)) if told.record else None
        self._tokenizer: Any = None
        # it must not be asked from two threads at once, and a long answer takes it a tenth of a second
        self._one_at_a_time = ThreadPoolExecutor(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; requests that generate carry their answers."""
        path = scope.get("path", "")
        if scope["type"] != "http" or scope.get("method") != "POST":
            await self.app(scope, receive, send)
        elif path == "/v1/embeddings":
            await _embedded(await _whole(receive), scope, receive, send)
        elif path in OTHERS or (path == MESSAGES and not _messages_take_answers()):
            why = f"{path} is not answered on virtual cards with this vLLM; take {', '.join(READERS)}"
            await _refused(BadBody(why, code="not_served", status=404), path)(scope, receive, send)
        elif path in READERS:
            await self._generate(path, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _generate(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        raw, began_s = await _whole(receive), time.time()
        understood = True
        try:
            wanted = READERS[path](raw)
            _check_room(scope, wanted)
        except BadBody as error:
            param = error.param or ""
            if error.code in REFUSED_HERE or param == "n" or param.startswith(ANSWERED_HERE):
                # vLLM is shown no pictures and no form of an answer, has no probabilities and samples nothing
                await _refused(error, path)(scope, receive, send)
                return
            # vLLM says what is wrong, or takes it: then it has to end
            wanted, understood = [_unread(raw)], False
        body = _fields(raw)
        if body is None:
            await self.app(scope, _replayed(raw, receive), send)
            return
        if self._any_name and body.get("model"):
            body["model"] = scope["app"].state.args.served_model_name[0]
        answers = await self._answers(wanted, scope)
        if len(answers) > 1:
            several.install(scope["app"].state.engine_client.engine_core)
        told_body = _told(path, body, wanted, [ids for _, ids in answers], self._tokenizer.eos_token_id)
        length = str(len(told_body)).encode()
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        scope = {**scope, "headers": [*headers, (b"content-length", length)]}
        await self.app(scope, _replayed(told_body, receive), send)
        if self._recorder is not None and understood:
            named = {name.decode(): value.decode() for name, value in headers}
            asked_for = [one for one in wanted for _ in range(one.n)]
            for one, (answer, ids) in zip(asked_for, answers, strict=True):
                tokens = one.max_tokens if one.exact else len(ids)
                self._recorder.note(one, answer, named, tokens, began_s, time.time())

    async def _answers(self, wanted: Sequence[Asked], scope: Scope) -> list[tuple[Answer, list[int]]]:
        """What is said to each prompt, as often as it is asked, and its tokens as far as they may come out."""
        found = []
        loop, parser = asyncio.get_running_loop(), _parser(scope)
        for one in wanted:
            for number in range(one.n):
                answer = await self._writer.write(one, number)
                text = dialects.written(answer, parser)
                ids = await loop.run_in_executor(self._one_at_a_time, self._tokens, scope, text)
                found.append((answer, ids[: one.max_tokens or None]))
        return found

    def _tokens(self, scope: Scope, text: str) -> list[int]:
        if self._tokenizer is None:
            self._tokenizer = _tokenizer(scope)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


@cache
def _messages_take_answers() -> bool:
    """Whether this vLLM hands on what travels with a body of /v1/messages, as 0.33 does."""
    try:
        from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
    except ImportError:
        return True  # without the endpoint vLLM says so itself
    return "vllm_xargs" in AnthropicMessagesRequest.model_fields


def _check_room(scope: Scope, wanted: Sequence[Asked]) -> None:
    """Raise BadBody for more answers than vLLM ever holds: it would say to come again, for ever."""
    config = getattr(getattr(scope.get("app"), "state", None), "vllm_config", None)
    most = getattr(getattr(config, "scheduler_config", None), "max_num_queued_reqs", None)
    count = sum(one.n for one in wanted)
    if most and count > most:
        raise BadBody(
            f"{count} answers in one body are more than this server ever holds, {most} (--max-num-queued-reqs)",
            "n" if wanted[0].n > 1 else "prompt",
            TOO_MANY,
        )


def _fields(raw: bytes) -> dict[str, Any] | None:
    """The body where it is one that can carry an answer."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    carries = isinstance(body, dict) and isinstance(body.get("vllm_xargs") or {}, dict)
    return body if carries else None


def _unread(raw: bytes) -> Asked:
    """A body that vLLM may take and our types do not (several prompts): it gets a plain answer."""
    text = raw[:UNREAD_MAX].decode("utf-8", "replace")
    return Asked(model="", messages=({"role": "user", "content": text},), prompt=text, chat=False)


def _told(
    path: str, body: dict[str, Any], wanted: Sequence[Asked], answers: Sequence[list[int]], end: int
) -> bytes:
    """The body with its answers' tokens, and without what would make vLLM look for a grammar or a picture."""
    first = wanted[0]
    lines = [",".join(map(str, ids)) for ids in answers]
    extra: dict[str, Any] = {FORCED: lines, EACH: first.n} if len(lines) > 1 else {FORCED: lines[0]}
    if not first.exact:
        extra[END] = str(end)
    if first.images:
        extra[PICTURES] = ",".join(str(picture.tokens()) for picture in first.images)
    body["vllm_xargs"] = {**(body.get("vllm_xargs") or {}), **extra}
    if path == MESSAGES:
        messages.plain(body)
        if first.images:
            messages.pictures_as(body, _without_picture)
        return json.dumps(body).encode()
    _ungrammared(body)
    for message in _turns(body) if first.images else ():
        if isinstance(message.get("content"), list):
            message["content"] = [_without_picture(part) for part in message["content"]]
    return json.dumps(body).encode()


def _ungrammared(body: dict[str, Any]) -> None:
    """Take out of a body what asks for a grammar: what was said obeys it, and nobody samples."""
    body.pop("response_format", None)
    body.pop("structured_outputs", None)
    if isinstance(body.get("text"), dict):
        body["text"].pop("format", None)  # the same in /v1/responses
    if body.get("tools") and body.get("tool_choice") not in (None, "none"):
        body["tool_choice"] = "auto"  # a forced choice would bring the grammar back


def _turns(body: dict[str, Any]) -> list[dict[str, Any]]:
    turns = body.get("messages") or body.get("input")
    return [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []


def _without_picture(part: dict[str, Any]) -> dict[str, Any]:
    """A picture becomes a text of as many tokens, the same for the same picture."""
    (picture,) = images_in([{"content": [part]}]) or (None,)
    if picture is None:
        return part
    kind = "input_text" if part["type"] == "input_image" else "text"
    mark = f"{zlib.crc32(str(part.get('image_url')).encode('utf-8', 'surrogatepass')):x}"
    return {"type": kind, "text": mark + " the" * (picture.tokens() - len(mark) // 2)}


def _parser(scope: Scope) -> str:
    """What ``--tool-call-parser`` this server was started with."""
    return str(
        getattr(getattr(scope["app"].state, "args", None), "tool_call_parser", None) or dialects.DEFAULT
    )


def _tokenizer(scope: Scope) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(scope["app"].state.vllm_config.model_config.tokenizer)


async def _embedded(raw: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        answer: Response = JSONResponse(embedding.answer(raw, "embedding"))
    except BadBody as error:
        answer = _refused(error)
    await answer(scope, receive, send)


def _refused(error: BadBody, path: str = "") -> Response:
    kind = "invalid_request_error"
    if path == MESSAGES:
        return JSONResponse({"type": "error", "error": {"type": kind, "message": str(error)}}, error.status)
    return JSONResponse(told.error(str(error), kind, error.code, error.param), error.status)


async def _whole(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    left = [body]

    async def replay() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replay

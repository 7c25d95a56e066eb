"""The OpenAI-compatible server: a deployment's pace, a virtual model's answers.

/v1/chat/completions, /v1/completions, /v1/models, /health, /version, /metrics. Any model name is served (clients
carry their own); the one of the deployment is listed. Bodies are limited, the queue is bounded (429 with
Retry-After), a client that goes away frees its place, and shutdown lets answers end.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from windtunnel import __version__
from windtunnel.endpoint import asked, exposition, policy, told
from windtunnel.endpoint.asked import Asked, BadBody
from windtunnel.endpoint.live import LiveEngine, Overloaded, Stream
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.text import block_keys, pieces, tokens_in, words
from windtunnel.serving.deployment import Deployment

BODY_MAX = 32 << 20
MEAN_OUTPUT = 150
"""Tokens of an answer when the client states no maximum: drawn around this, as recorded agents' answers are."""


class Endpoint:
    """The application around one live engine. ``app`` is the ASGI application."""

    def __init__(self, deployment: Deployment, *, speed: float = 1.0, max_queue: int = 4096) -> None:
        self.deployment = deployment
        self.speed, self.max_queue = speed, max_queue
        self.name = deployment.model.name
        self.engine: LiveEngine
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completion, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/health", self._health),
            Route("/version", self._version),
            Route("/metrics", self._metrics),
        ]
        handlers = {404: _plain_error, 405: _plain_error}
        self.app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.engine = LiveEngine(self.deployment, self.speed, self.max_queue)
        self.engine.start()
        yield
        await self.engine.stop()

    async def _models(self, request: Request) -> Response:
        model = {"id": self.name, "object": "model", "created": 0, "owned_by": "windtunnel"}
        model["max_model_len"] = self.deployment.cache_tokens
        return JSONResponse({"object": "list", "data": [model]})

    async def _health(self, request: Request) -> Response:
        return Response()

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": __version__})

    async def _metrics(self, request: Request) -> Response:
        return PlainTextResponse(exposition.text(self.engine, self.name))

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, asked.chat, chat=True)

    async def _completion(self, request: Request) -> Response:
        return await self._answer(request, asked.completion, chat=False)

    async def _answer(self, request: Request, read: Callable[[bytes], Asked], *, chat: bool) -> Response:
        try:
            wanted = read(await _body(request))
            answer, tokens = self._written(wanted)
            stream = self._submit(wanted, len(tokens))
        except BadBody as error:
            body = told.error(str(error), "invalid_request_error", "invalid_value", error.param)
            return JSONResponse(body, 400)
        except Overloaded as error:
            body = told.error("the server is overloaded", "rate_limit_error", "rate_limit_exceeded")
            return JSONResponse(body, 429, {"Retry-After": str(error.retry_after_s)})
        name = ("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex
        reply = told.Reply(name, int(time.time()), wanted.model or self.name, chat)
        finish = "tool_calls" if answer.calls else "length" if _cut(wanted, tokens) else "stop"
        if wanted.stream:
            events = self._events(wanted, stream, reply, answer, tokens, finish)
            return StreamingResponse(events, media_type="text/event-stream")
        return await self._whole(request, wanted, stream, reply, answer, tokens, finish)

    async def _whole(
        self, request: Request, wanted: Asked, stream: Stream, reply: told.Reply, answer: Answer,
        tokens: list[str], finish: str,
    ) -> Response:  # fmt: skip
        async for number in self.engine.tokens(stream):
            if number % 32 == 0 and await request.is_disconnected():
                stream.gone = True
                return Response(status_code=499)
        return JSONResponse(reply.whole(answer, "".join(tokens), finish, _usage(wanted, stream, tokens)))

    async def _events(
        self, wanted: Asked, stream: Stream, reply: told.Reply, answer: Answer, tokens: list[str], finish: str
    ) -> AsyncIterator[str]:
        async for number in self.engine.tokens(stream):
            if not answer.calls:
                yield reply.chunk(tokens[number], number == 0)
        if answer.calls:
            yield reply.calls(answer)
        yield reply.chunk("", False, finish)
        if wanted.include_usage:
            yield reply.usage(_usage(wanted, stream, tokens))
        yield "data: [DONE]\n\n"

    def _written(self, wanted: Asked) -> tuple[Answer, list[str]]:
        """The answer and its tokens, cut or filled up to what the client asked for."""
        most = wanted.max_tokens
        length = most if most and wanted.exact else _length(wanted.prompt)
        length = min(length, most) if most else length
        if wanted.exact and most:
            answer = Answer(words(most, wanted.prompt[-256:]))
        else:
            answer = policy.answer(wanted.messages, wanted.tools, wanted.tool_choice, wanted.schema, length)
        tokens = pieces(answer.written)
        if most:
            tokens = tokens[:most]
            tokens += [" ok."] * (most - len(tokens) if wanted.exact else 0)
        return answer, tokens

    def _submit(self, wanted: Asked, output: int) -> Stream:
        prompt = wanted.prompt_tokens or tokens_in(wanted.prompt)
        room = self.deployment.cache_tokens
        most = max(output, wanted.max_tokens)
        if prompt + most > room:
            raise BadBody(
                f"this deployment holds {room} tokens; the request has {prompt} and may generate {most}",
                "messages" if not wanted.prompt_tokens else "prompt",
            )
        keys = block_keys(wanted.prompt, self.deployment.memory.block_tokens)
        return self.engine.submit(prompt, output, keys)


def _length(prompt: str) -> int:
    """Answer length where the client leaves it open: exponential around the mean, fixed by the prompt."""
    seed = hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return 8 + min(2048, int(random.Random(seed).expovariate(1 / MEAN_OUTPUT)))


def _cut(wanted: Asked, tokens: list[str]) -> bool:
    return bool(wanted.max_tokens) and len(tokens) >= wanted.max_tokens


def _usage(wanted: Asked, stream: Stream, tokens: list[str]) -> told.Usage:
    return told.Usage(stream.sequence.request.prompt_tokens, stream.sequence.cached_tokens, len(tokens))


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_MAX:
            raise BadBody(f"the body is larger than {BODY_MAX >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


async def _plain_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    message = f"{request.method} {request.url.path} is not served here"
    return JSONResponse(told.error(message, "invalid_request_error", status), status)


def serve(deployment: Deployment, *, host: str, port: int, speed: float, max_queue: int) -> int:
    """Serve until interrupted; the answer is the exit status."""
    endpoint = Endpoint(deployment, speed=speed, max_queue=max_queue)
    title = deployment.model.title or deployment.model.name
    at = f"http://{host}:{port}/v1"
    print(f"{title}, {deployment.words()}: {at} (interrupt to stop)", file=sys.stderr)
    uvicorn.run(endpoint.app, host=host, port=port, log_level="warning", access_log=False)
    return 0

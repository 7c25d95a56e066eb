"""The native OpenAI-compatible server: a deployment's pace, a virtual model's answers.

/v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/models, /health, /version, /metrics and
/openapi.json. Bodies are limited, the queue is bounded (429 with Retry-After), a client that goes away frees its
place, and shutdown lets answers end.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from windtunnel import __version__
from windtunnel.endpoint import asked, embedding, exposition, openapi, streams, told
from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.bodies import BODIES, BadBody
from windtunnel.endpoint.lengths import AnswerLengths
from windtunnel.endpoint.live import LiveEngine, Overloaded, Stream
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.recorder import Recorder
from windtunnel.endpoint.speaker import Speaker
from windtunnel.endpoint.streams import Exchange
from windtunnel.endpoint.text import block_keys, pieces, tokens_in
from windtunnel.endpoint.told import Usage
from windtunnel.endpoint.told_responses import Response as ResponseReply
from windtunnel.endpoint.writer import Writer, cut_to
from windtunnel.errors import WindtunnelError
from windtunnel.serving.deployment import Deployment

BODY_MAX = 32 << 20
ANY = "*"
LOOK_EVERY_S = 0.25
"""How often a client that waits for a whole answer is looked after."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A request in the engine, with all that its answer needs."""

    wanted: Asked
    answer: Answer
    tokens: list[str]
    cut: bool
    stream: Stream
    model: str
    created: int


class Endpoint:
    """The application around one live engine. ``app`` is the ASGI application; ``keeps``: see ``LiveEngine``.

    ``max_model_len``: tokens of a sequence at most; 0: as many as a rank's cache holds.
    """

    def __init__(
        self, deployment: Deployment, *, speed: float = 1.0, max_queue: int = 4096,
        names: Sequence[str] = (), lengths: AnswerLengths | None = None, record: Path | None = None,
        speaker: Speaker | None = None, keeps: bool = False, max_model_len: int = 0,
    ) -> None:  # fmt: skip
        self.deployment = deployment
        self.max_model_len = max_model_len or deployment.cache_tokens
        self.keeps = keeps
        self.speed, self.max_queue = speed, max_queue
        model = deployment.model
        self.names = tuple(names) or (model.name, *model.aliases)
        self.engine: LiveEngine
        self._writer = Writer(lengths or AnswerLengths(), speaker)
        self._recorder = Recorder(record) if record else None
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completion, methods=["POST"]),
            Route("/v1/responses", self._response, methods=["POST"]),
            Route("/v1/embeddings", self._embeddings, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/health", self._health),
            Route("/version", self._version),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi),
        ]
        handlers = {
            404: _plain_error,
            405: _plain_error,
            BadBody: _bad_body,
            Overloaded: _overloaded,
            WindtunnelError: _failed,
        }
        self.app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)

    @property
    def name(self) -> str:
        """What the model is called where the client does not say."""
        return next((name for name in self.names if name != ANY), self.deployment.model.name)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.deployment.step.warm(self.deployment.options.max_num_seqs)
        self.engine = LiveEngine(self.deployment, self.speed, self.max_queue, self.keeps)
        self.engine.start()
        yield
        await self.engine.stop()
        if self._recorder is not None:
            self._recorder.close()

    # What generates nothing

    async def _models(self, request: Request) -> Response:
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": "windtunnel",
             "max_model_len": self.max_model_len}
            for name in self.names if name != ANY
        ]  # fmt: skip
        return JSONResponse({"object": "list", "data": listed})

    async def _health(self, request: Request) -> Response:
        return Response()

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": __version__})

    async def _metrics(self, request: Request) -> Response:
        return PlainTextResponse(exposition.text(self.engine, self.name))

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(openapi.document())

    async def _embeddings(self, request: Request) -> Response:
        return JSONResponse(embedding.answer(await _body(request), self.name))

    # What generates

    async def _chat(self, request: Request) -> Response:
        return await self._generate(request, asked.chat, "chatcmpl-")

    async def _completion(self, request: Request) -> Response:
        return await self._generate(request, asked.completion, "cmpl-")

    async def _response(self, request: Request) -> Response:
        return await self._generate(request, asked.response, "resp_")

    async def _generate(self, request: Request, read: Callable[[bytes], Asked], prefix: str) -> Response:
        began_s = time.time()
        begun = await self._begin(read(await _body(request)))
        name = prefix + uuid.uuid4().hex
        exchange = Exchange(begun.answer, begun.tokens, begun.cut, lambda: _usage(begun))
        if prefix == "resp_":
            reply = ResponseReply(name, begun.created, begun.model)
            events = streams.of_response(exchange, reply)
        else:
            chat = told.Reply(name, begun.created, begun.model, prefix == "chatcmpl-")
            events = streams.of_reply(exchange, chat, begun.wanted.include_usage)
        if begun.wanted.stream:
            sent = self._sent(request, begun, events, began_s)
            return StreamingResponse(sent, media_type="text/event-stream")
        if not await self._waited(request, begun):
            return Response(status_code=499)
        self._note(request, begun, began_s)
        text = "".join(begun.tokens)
        if prefix == "resp_":
            return JSONResponse(reply.whole(begun.answer, text, begun.cut, _usage(begun)))
        return JSONResponse(chat.whole(begun.answer, text, exchange.finish, _usage(begun)))

    async def _begin(self, wanted: Asked) -> _Begun:
        """Put a request into the engine. Raises BadBody and Overloaded."""
        self._check_name(wanted.model)
        prompt = wanted.prompt_tokens or tokens_in(wanted.prompt)
        room = self.max_model_len
        if prompt >= room:
            raise BadBody(
                f"{self.name} is served with a context of {room} tokens; the prompt alone has {prompt}",
                "messages" if wanted.chat else "prompt",
                code="context_length_exceeded",
            )
        tower = self.deployment.step.vision
        if wanted.images and tower is None:
            raise BadBody(f"{self.name} takes no pictures", "messages", code="unsupported_content")
        self.engine.check_room()
        answer = await self._writer.write(wanted)
        tokens, cut = cut_to(wanted, pieces(answer.written), room - prompt)
        keys = block_keys(wanted.prompt, self.deployment.key_tokens)
        pictures = [picture.tokens() * tower.merge for picture in wanted.images] if tower else []
        stream = self.engine.submit(prompt, len(tokens), keys, pictures)
        return _Begun(wanted, answer, tokens, cut, stream, wanted.model or self.name, int(time.time()))

    def _check_name(self, model: str) -> None:
        if model and model not in self.names and ANY not in self.names:
            served = ", ".join(self.names)
            raise BadBody(
                f"the model `{model}` is not served here; served: {served} (--served-model-name '*': any)",
                "model",
                code="model_not_found",
                status=404,
            )

    async def _waited(self, request: Request, begun: _Begun) -> bool:
        """Until the answer is complete; False when the client went away."""
        looked_s = time.monotonic()
        async for _ in self.engine.progress(begun.stream):
            if time.monotonic() - looked_s > LOOK_EVERY_S:
                if await request.is_disconnected():
                    return False
                looked_s = time.monotonic()
        return True

    async def _sent(
        self, request: Request, begun: _Begun, events: streams.Events, began_s: float
    ) -> AsyncIterator[str]:
        if text := events.at_once():
            yield text
        told_of = 0
        async for count in self.engine.progress(begun.stream):
            text = events.tokens(told_of, count)
            if not told_of:
                text = events.before() + text
            if text:
                yield text
            told_of = count
        self._note(request, begun, began_s)
        yield events.after()

    def _note(self, request: Request, begun: _Begun, began_s: float) -> None:
        self.engine.counters.finished["length" if begun.cut else "stop"] += 1
        if self._recorder is not None:
            self._recorder.note(
                begun.wanted, begun.answer, request.headers, len(begun.tokens), began_s, time.time()
            )


def _usage(begun: _Begun) -> Usage:
    sequence = begun.stream.sequence
    return Usage(sequence.request.prompt_tokens, sequence.cached_tokens, len(begun.tokens))


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > BODY_MAX:
                limit = f"the body is larger than {BODY_MAX >> 20} MiB"
                raise BadBody(limit, code="request_too_large", status=413)
            parts.append(part)
    except ClientDisconnect:
        raise BadBody("the client went away", status=499) from None
    return b"".join(parts)


async def _bad_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadBody)
    body = told.error(str(error), "invalid_request_error", error.code, error.param)
    return JSONResponse(body, error.status)


async def _overloaded(request: Request, error: Exception) -> Response:
    assert isinstance(error, Overloaded)
    body = told.error("the server is overloaded", "rate_limit_error", "rate_limit_exceeded")
    return JSONResponse(body, 429, {"Retry-After": str(error.retry_after_s)})


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(told.error(str(error), "server_error", getattr(error, "code", None)), 500)


async def _plain_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    message = f"{request.method} {request.url.path} is not served here"
    if f"/v1{request.url.path}" in BODIES:
        message += f": the address of the endpoint ends in /v1, so that this is /v1{request.url.path}"
    headers = getattr(error, "headers", None)
    return JSONResponse(told.error(message, "invalid_request_error", str(status)), status, headers)


def bound(host: str, port: int) -> socket.socket:
    """A socket at that address, to be listened on when the server is ready; port 0: any free one. Raises E667."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise WindtunnelError(
            "E667",
            f"cannot listen at {host}:{port}: {error.strerror or error}",
            hint=f"another port: --port {port + 1 if port < (1 << 16) - 1 else 8000}; --port 0 takes a free one",
        ) from None
    return found


def serve(endpoint: Endpoint, *, host: str, port: int) -> int:
    """Serve until interrupted; the answer is the exit status. Raises E667."""
    deployment = endpoint.deployment
    title = deployment.model.title or deployment.model.name
    with bound(host, port) as listener:
        at = f"http://{host}:{listener.getsockname()[1]}/v1"
        said = f"{title}, {deployment.words()}: {at} (interrupt to stop)"
        server = _Server(uvicorn.Config(endpoint.app, log_level="warning", access_log=False), said)
        before = signal.signal(
            signal.SIGTERM, _interrupt
        )  # uvicorn raises what it caught again when all is drained
        try:
            with suppress(KeyboardInterrupt):
                server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, before)
    return 0


class _Server(uvicorn.Server):
    """Says where it is as soon as it answers there, not before."""

    def __init__(self, config: uvicorn.Config, said: str) -> None:
        super().__init__(config)
        self._said = said

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._said, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

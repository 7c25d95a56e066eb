"""The native OpenAI-compatible server: a deployment's pace, a virtual model's answers.

/v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/models, /health, /version, /metrics and
/openapi.json. Bodies are limited, the queue is bounded (429 with Retry-After), a client that goes away frees its
place, and shutdown lets answers end.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from windtunnel import __version__
from windtunnel.endpoint import asked, choices, embedding, exposition, mistakes, openapi, streams, told
from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.bodies import BadBody
from windtunnel.endpoint.choices import Choice, Written
from windtunnel.endpoint.lengths import AnswerLengths
from windtunnel.endpoint.live import LiveEngine
from windtunnel.endpoint.recorder import Recorder
from windtunnel.endpoint.speaker import Speaker
from windtunnel.endpoint.streams import Exchange
from windtunnel.endpoint.text import block_keys, pieces, tokens_in
from windtunnel.endpoint.told_responses import Response as ResponseReply
from windtunnel.endpoint.writer import Writer, cut_to
from windtunnel.errors import WindtunnelError
from windtunnel.serving.deployment import Deployment

BODY_MAX = 32 << 20
ANY = "*"
LOOK_EVERY_S = 0.25
"""How often a client that waits for a whole answer is looked after."""


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
        self.app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=mistakes.HANDLERS)

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
        return await self._generate(request, [asked.chat(await _body(request), native=True)], "chatcmpl-")

    async def _completion(self, request: Request) -> Response:
        return await self._generate(request, asked.completions(await _body(request), native=True), "cmpl-")

    async def _response(self, request: Request) -> Response:
        return await self._generate(request, [asked.response(await _body(request), native=True)], "resp_")

    async def _generate(self, request: Request, wanted: Sequence[Asked], prefix: str) -> Response:
        began_s = time.time()
        for one in wanted:
            self._check(one)
        choices.check(self.engine, wanted)
        self.engine.check_room()
        written = []
        for one in wanted:
            for number in range(one.n):
                written.append(await self._written(one, number))
                await asyncio.sleep(0)  # tokens of others are due while many prompts are answered
        found = choices.submit(self.engine, written)
        name, created, model = prefix + uuid.uuid4().hex, int(time.time()), wanted[0].model or self.name
        exchanges = [
            Exchange(
                one.written.answer, one.written.tokens, one.written.cut,
                lambda: choices.usage(found), partial(choices.alone, one),
                one.written.wanted.prompt if one.written.wanted.echo else "",
            )
            for one in found
        ]  # fmt: skip
        if prefix == "resp_":
            response = ResponseReply(name, created, model)
            events = [streams.of_response(exchanges[0], response)]
        else:
            replies = [
                told.Reply(name, created, model, prefix == "chatcmpl-", index) for index in range(len(found))
            ]
            events = [
                streams.of_reply(exchange, reply, one.written.wanted)
                for exchange, reply, one in zip(exchanges, replies, found, strict=True)
            ]
        if wanted[0].stream:
            sent = self._sent(request, found, events, began_s)
            return StreamingResponse(sent, media_type="text/event-stream")
        if not await self._waited(request, found, began_s):
            return Response(status_code=499)
        if prefix == "resp_":
            (said,) = exchanges
            return JSONResponse(response.whole(said.answer, said.text, said.cut, said.usage()))
        whole = [
            reply.choice(one.answer, one.before + one.text, one.finish)
            for reply, one in zip(replies, exchanges, strict=True)
        ]
        return JSONResponse(replies[0].whole(whole, choices.usage(found)))

    def _check(self, wanted: Asked) -> None:
        """Raises BadBody for what this deployment cannot answer."""
        self._check_name(wanted.model)
        prompt = wanted.prompt_tokens or tokens_in(wanted.prompt)
        if prompt >= self.max_model_len:
            raise BadBody(
                f"{self.name} is served with a context of {self.max_model_len} tokens; "
                f"the prompt alone has {prompt}",
                "messages" if wanted.chat else "prompt",
                code="context_length_exceeded",
            )
        if wanted.images and self.deployment.step.vision is None:
            raise BadBody(f"{self.name} takes no pictures", "messages", code="unsupported_content")

    async def _written(self, wanted: Asked, number: int) -> Written:
        prompt = wanted.prompt_tokens or tokens_in(wanted.prompt)
        tower = self.deployment.step.vision
        answer = await self._writer.write(wanted, number)
        room = self.max_model_len - prompt
        tokens, cut = cut_to(wanted, pieces(answer.written), room)
        keys = block_keys(wanted.prompt, self.deployment.key_tokens, wanted.salt)
        pictures = [picture.tokens() * tower.merge for picture in wanted.images] if tower else []
        most = min(wanted.max_tokens or room, room)
        return Written(wanted, answer, tokens, cut, prompt, keys, pictures, number == 0, most)

    def _check_name(self, model: str) -> None:
        if model and model not in self.names and ANY not in self.names:
            served = ", ".join(self.names)
            raise BadBody(
                f"the model `{model}` is not served here; served: {served} (--served-model-name '*': any)",
                "model",
                code="model_not_found",
                status=404,
            )

    async def _waited(self, request: Request, found: Sequence[Choice], began_s: float) -> bool:
        """Until all answers are complete; False when the client went away."""
        looked_s = time.monotonic()
        async for place, _ in self.engine.progress([one.stream for one in found]):
            if found[place].stream.done:
                self._note(request, found[place], began_s)
            if time.monotonic() - looked_s > LOOK_EVERY_S:
                if await request.is_disconnected():
                    return False
                looked_s = time.monotonic()
        choices.count(self.engine, found)
        return True

    async def _sent(
        self, request: Request, found: Sequence[Choice], events: Sequence[streams.Events], began_s: float
    ) -> AsyncIterator[str]:
        for one in events:
            if text := one.at_once():
                yield text
        told_of = [0] * len(found)
        async for place, count in self.engine.progress([one.stream for one in found]):
            text = events[place].tokens(told_of[place], count)
            if not told_of[place]:
                text = events[place].before() + text
            told_of[place] = count
            if found[place].stream.done:
                self._note(request, found[place], began_s)
                text += events[place].after()
            if text:
                yield text
        choices.count(self.engine, found)
        yield events[0].last()

    def _note(self, request: Request, choice: Choice, began_s: float) -> None:
        """An answer is complete."""
        written = choice.written
        self.engine.counters.finished["length" if written.cut else "stop"] += 1
        if self._recorder is not None:
            self._recorder.note(
                written.wanted, written.answer, request.headers, len(written.tokens), began_s, time.time()
            )


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

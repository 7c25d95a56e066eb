"""One address in front of two engines of vLLM: prompts go to one, then, with what it says, to the other.

The protocol of vLLM's own proxies: the prefill engine answers one token and ``kv_transfer_params``; the decode engine
is sent the same body with them, fetches the cache and answers. Calls that vLLM takes no such parameters with
(``/v1/responses``) are computed by the decode engine alone; everything else is asked of it too. ``/prefill/…``
reaches the other one, for its ``/metrics``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from windtunnel.endpoint import told
from windtunnel.endpoint.vllm.progress import FETCH, HOLD

APART = ("/v1/chat/completions", "/v1/completions")
METHODS = ["GET", "POST", "DELETE", "OPTIONS"]
HOP = {"host", "content-length", "connection", "transfer-encoding", "content-encoding", "accept-encoding"}
LEAVE_S = 60.0


@dataclass(frozen=True, slots=True)
class Engine:
    """A `vllm serve` to start: its words, environment and port."""

    words: Sequence[str]
    environment: Mapping[str, str]
    port: int

    @property
    def root(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Pair:
    """The application in front of both. ``app`` is the ASGI application."""

    def __init__(self, prefill: str, decode: str) -> None:
        self._prefill, self._decode = prefill, decode
        self._client: httpx.AsyncClient
        routes = [
            *(Route(path, self._apart, methods=["POST"]) for path in APART),
            Route("/prefill/{path:path}", self._to_prefill, methods=METHODS),
            Route("/{path:path}", self._to_decode, methods=METHODS),
        ]
        self.app = Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as self._client:
            yield

    async def _to_prefill(self, request: Request) -> Response:
        return await self._passed(
            request, f"{self._prefill}/{request.path_params['path']}", await request.body()
        )

    async def _to_decode(self, request: Request) -> Response:
        return await self._passed(request, self._decode + request.url.path, await request.body())

    async def _apart(self, request: Request) -> Response:
        raw = await request.body()
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        at = request.url.path
        if not isinstance(body, dict):
            return await self._passed(request, self._decode + at, raw)  # vLLM says what is wrong with it
        try:
            first = await self._client.post(
                self._prefill + at, json=_prompt_only(body), headers=_headers(request)
            )
        except httpx.HTTPError as error:
            return _gone(error)
        if first.status_code != 200:
            return Response(first.content, first.status_code, media_type=first.headers.get("content-type"))
        found = first.json().get("kv_transfer_params")
        raw = json.dumps({**body, "kv_transfer_params": found} if found else body).encode()
        return await self._passed(request, self._decode + at, raw)

    async def _passed(self, request: Request, url: str, raw: bytes) -> Response:
        if request.url.query:
            url += f"?{request.url.query}"
        try:
            asked = self._client.build_request(request.method, url, content=raw, headers=_headers(request))
            answer = await self._client.send(asked, stream=True)
        except httpx.HTTPError as error:
            return _gone(error)
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
        return StreamingResponse(_parts(answer), answer.status_code, headers)


async def _parts(answer: httpx.Response) -> AsyncIterator[bytes]:
    """What comes, as it comes; a client that leaves closes the engine's stream too."""
    try:
        async for part in answer.aiter_bytes():
            yield part
    finally:
        await answer.aclose()


def _headers(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower() not in HOP}


def _gone(error: Exception) -> Response:
    return JSONResponse(told.error(f"an engine went away: {error}", "server_error", "engine_gone"), 502)


def _prompt_only(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body that has the prompt computed and one token said."""
    left_out = ("stream_options", "min_tokens", "max_completion_tokens")
    kept = {name: value for name, value in body.items() if name not in left_out}
    wish = {HOLD: True, FETCH: False}
    return {**kept, "max_tokens": 1, "stream": False, "kv_transfer_params": wish}


def serve(prefill: Engine, decode: Engine, host: str, port: int) -> int:
    """Start both, answer until interrupted, end both. The answer is the exit status."""
    # uvicorn answers a signal, then raises it again: the engines must still be ended then
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    running = [
        subprocess.Popen(list(engine.words), env=dict(engine.environment), start_new_session=True)
        for engine in (prefill, decode)
    ]
    try:
        return asyncio.run(_serve(running, prefill, decode, host, port))
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()


async def _serve(
    running: Sequence[subprocess.Popen[bytes]], prefill: Engine, decode: Engine, host: str, port: int
) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        for engine in (prefill, decode):
            while not await _healthy(client, engine.root):
                if any(process.poll() is not None for process in running):
                    print("an engine ended before it answered; its message is above", file=sys.stderr)
                    return 3
                await asyncio.sleep(0.5)
    config = uvicorn.Config(
        Pair(prefill.root, decode.root).app, host=host, port=port, log_level="warning", access_log=False
    )
    await uvicorn.Server(config).serve()
    return 0


async def _healthy(client: httpx.AsyncClient, root: str) -> bool:
    try:
        return (await client.get(f"{root}/health")).status_code == 200
    except httpx.HTTPError:
        return False

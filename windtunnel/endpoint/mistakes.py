"""What goes wrong, in OpenAI's format."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from windtunnel.endpoint import told
from windtunnel.endpoint.bodies import BODIES, BadBody
from windtunnel.endpoint.live import Overloaded
from windtunnel.errors import WindtunnelError

Handler = Callable[[Request, Exception], Awaitable[Response]]


async def bad_body(request: Request, error: Exception) -> Response:
    """A body that cannot be answered."""
    assert isinstance(error, BadBody)
    body = told.error(str(error), "invalid_request_error", error.code, error.param)
    return JSONResponse(body, error.status)


async def overloaded(request: Request, error: Exception) -> Response:
    """More than the queue holds: 429 with Retry-After."""
    assert isinstance(error, Overloaded)
    body = told.error(str(error), "rate_limit_error", "rate_limit_exceeded")
    return JSONResponse(body, 429, {"Retry-After": str(error.retry_after_s)})


async def failed(request: Request, error: Exception) -> Response:
    """What is this server's fault."""
    return JSONResponse(told.error(str(error), "server_error", getattr(error, "code", None)), 500)


async def plain_error(request: Request, error: Exception) -> Response:
    """An address or a method that is not served."""
    status = getattr(error, "status_code", 404)
    message = f"{request.method} {request.url.path} is not served here"
    if f"/v1{request.url.path}" in BODIES:
        message += f": the address of the endpoint ends in /v1, so that this is /v1{request.url.path}"
    if request.url.path.startswith("/v1/messages"):
        message += ": Anthropic's format is vLLM's, add --engine vllm"
    headers = getattr(error, "headers", None)
    return JSONResponse(told.error(message, "invalid_request_error", str(status)), status, headers)


HANDLERS: dict[int | type[Exception], Handler] = {
    404: plain_error,
    405: plain_error,
    BadBody: bad_body,
    Overloaded: overloaded,
    WindtunnelError: failed,
}
"""For the application, by status or exception."""

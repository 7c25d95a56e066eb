"""Several answers of one body: every request that vLLM makes of it takes its own along, not all of them.

vLLM numbers what it makes of a body in the names of its requests: the prompt behind (``cmpl-…-2-1a2b3c4d``), the answer
before (``1_cmpl-…``). They are looked at where they leave the server for an engine.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from windtunnel.endpoint.vllm.progress import EACH, FORCED

_ANSWER = re.compile(r"(\d+)_(?=(?:chat)?cmpl-)")
_PROMPT = re.compile(r"^(?:\d+_)?cmpl-.*?-(\d+)(?:-[0-9a-f]{8})?$")


def place(name: str, each: int) -> int:
    """Which answer of its body a request of vLLM is, of ``each`` to a prompt."""
    answer, prompt = _ANSWER.match(name), _PROMPT.match(name)
    return (int(prompt[1]) * each if prompt else 0) + (int(answer[1]) if answer else 0)


def own(name: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What travels with a request, of what came with its body."""
    answers = extra[FORCED]
    kept = {key: value for key, value in extra.items() if key != EACH}
    return {**kept, FORCED: answers[place(name, int(extra.get(EACH, 1))) % len(answers)]}


def install(core: Any) -> None:
    """Have vLLM's client of its engines (``AsyncLLM.engine_core``) hand each request its own answer; once."""
    if getattr(core, "windtunnel_hands_out", False):
        return
    plain = core.add_request_async

    async def add_request_async(request: Any) -> Any:
        params: Any = getattr(request, "sampling_params", None)
        extra = getattr(params, "extra_args", None) or {}
        if isinstance(extra.get(FORCED), list):
            params = copy.copy(params)
            params.extra_args = own(request.request_id, extra)
            request.sampling_params = params
        return await plain(request)

    core.add_request_async = add_request_async
    core.windtunnel_hands_out = True

"""Runs traffic through SGLang's own prefill and decode servers in virtual time, without a GPU (``sglang_servers.py``).

Cases on stdin, what was decided on stdout. SGLang's own: PrefillBootstrapQueue, chunks sent as they are computed and
the inflight queue; DecodePreallocQueue, DecodeTransferQueue, retraction and resumption; allocators, Req, tree, adder.
Whichever side is behind goes first; at one instant the decode side. Runs in the environment of ``run.sh``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.engines import sglang_engine as single

OPERATORS = single.LIBRARY  # with which SGLang can be imported without a GPU

from sglang.srt.managers import schedule_batch as sb  # noqa: E402
from sglang.srt.sampling.sampling_params import SamplingParams  # noqa: E402

from tests.engines import sglang_transfer as transfer  # noqa: E402
from tests.engines.cases import condensed  # noqa: E402
from tests.engines.sglang_servers import Outputs, Prompts, Quiet  # noqa: E402

FIRST_OUTPUT = 1 << 30


def run(case: dict[str, Any]) -> dict[str, Any]:
    def requests() -> list[Any]:
        found = []
        for number, (_, prompt, output, keys) in enumerate(case["requests"]):
            sampling = SamplingParams(max_new_tokens=output)
            sampling.normalize(None)
            request = sb.Req(
                str(number), "", single.tokens(keys, case["key_tokens"], prompt), sampling, eos_token_ids=set(),
                bootstrap_host="prompts", bootstrap_port=1, bootstrap_room=number + 1,
            )  # fmt: skip
            request.number, request.time_stats, request.checks = number, Quiet(), 0
            request.first_output = FIRST_OUTPUT + (number << 20)
            found.append(request)
        return found

    wire = transfer.Wire(case["options"])
    outputs = Outputs({**case["options"], **case["decode"]}, case, requests(), wire)
    prompts = Prompts(case["options"], case, requests(), wire)
    while True:
        side = min((outputs, prompts), key=lambda one: one.due_s)
        if side.due_s == transfer.NEVER:
            break
        side.turn()
    assert all(s >= 0 for s in outputs.last_s), "stuck"
    assert outputs.allocator.available_size() == outputs.tokens, "pages were lost"
    rooms = [wire.room(number + 1) for number in range(len(case["requests"]))]
    decoded = condensed("", outputs.steps, [])
    return {
        "name": case["name"],
        "steps": prompts.steps,
        "times": [list(pair) for pair in zip(outputs.first, outputs.last_s, strict=True)],
        "decode_steps": decoded["steps"],
        "decode_sha256": decoded["sha256"],
        "decode_samples": decoded["samples"],
        "moments": [
            [round(s, 9) for s in one]
            for one in zip(
                (room.asked_s for room in rooms), prompts.started, (room.done_s for room in rooms), outputs.decoding,
                strict=True,
            )
        ],
        "retracted": outputs.retracted,
    }  # fmt: skip


if __name__ == "__main__":
    transfer.installed()
    print(json.dumps([run(case) for case in json.load(sys.stdin)]))

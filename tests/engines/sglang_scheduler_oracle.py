"""Runs traffic through SGLang's scheduler (``sglang_engine``) in virtual time, without a GPU.

Cases on stdin, what every step computed on stdout. Runs in the environment of ``run.sh``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.engines import sglang_engine as single

OPERATORS = single.LIBRARY  # with which SGLang can be imported without a GPU

from sglang.srt.managers import schedule_batch as sb  # noqa: E402
from sglang.srt.sampling.sampling_params import SamplingParams  # noqa: E402


def run(case: dict[str, Any]) -> dict[str, Any]:
    engine, rows = single.Engine(case["options"]), case["requests"]
    requests = []
    for number, (_, prompt, output, keys) in enumerate(rows):
        request = sb.Req(
            str(number), "", single.tokens(keys, case["key_tokens"], prompt), SamplingParams(max_new_tokens=output),
            eos_token_ids=set(),
        )  # fmt: skip
        request.number = number
        request.first_output = (1 << 40) + (number << 20)
        request.checks = 0
        request.sampling_params.normalize(None)
        requests.append(request)
    now, free_at, place, steps, times = 0.0, 0.0, 0, [], [[0.0, 0.0] for _ in rows]
    queue: list[Any] = []

    def process() -> None:
        nonlocal now
        kind, batch, chunked, decoding, tracks, ends_at = queue.pop(0)
        now = max(now, ends_at)
        firsts = [r for r, _ in batch if not len(r.output_ids)]
        engine.clock.now = now
        for request in engine.complete(kind, batch, chunked, decoding, tracks):
            times[request.number][1] = now
        for request in firsts:
            if len(request.output_ids):
                times[request.number][0] = now
        engine.in_flight = set()
        if engine.host:
            engine.tree.flush_pending_backups()

    while place < len(rows) or engine.busy or queue:
        while place < len(rows) and rows[place][0] <= now:
            engine.add(requests[place])
            place += 1
        engine.clock.now = now
        kind, batch = engine.step()
        now = engine.clock.now
        if batch:
            steps.append(sorted((request.number, new) for request, new in batch))
            seconds = case["fixed_s"] + case["token_s"] * sum(new for _, new in batch)
            free_at = max(now, free_at) + seconds
            if engine.host:
                free_at = max(free_at, engine.host.loaded_s)
            decoding = engine.decoding if kind == "extend" else []
            tracks = (
                ((engine.kept, engine.checks.tracks) if engine.checks else engine.tracks)
                if kind == "decode"
                else None
            )
            queue.append((kind, batch, engine.chunked, decoding, tracks, free_at))
        if len(queue) > int(engine.overlap and bool(batch)):
            process()
        elif not batch:
            assert place < len(rows) or not engine.busy, "stuck"
            engine.ratio.reset()
            if place < len(rows):
                now = max(now, rows[place][0])
        engine.in_flight = {request for request, _ in queue[-1][1]} if queue else set()
    found = {"name": case["name"], "steps": steps, "times": times, "retracted": engine.retracted}
    if engine.host:
        host = engine.host
        found |= {"loaded": host.loaded, "stored": host.stored, "dropped": host.mem_pool_host.dropped}
    return found


if __name__ == "__main__":
    print(json.dumps([run(case) for case in json.load(sys.stdin)]))

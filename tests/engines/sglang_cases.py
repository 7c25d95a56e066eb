"""Queues whose order SGLang's policy classes are asked for. Seeded: the same on every machine."""

from __future__ import annotations

import json
import random
from typing import Any

KEY_TOKENS, PAGE = 32, 16


def queues() -> list[dict[str, Any]]:
    """All cases, in the form that ``sglang_oracle.py`` reads."""
    return [_queue(seed, policy) for seed in range(8) for policy in ("fcfs", "lpm", "lof", "hrrn")]


def _queue(seed: int, policy: str) -> dict[str, Any]:
    draw = random.Random(seed)
    known: list[list[int]] = [[]]
    fresh = 1
    for _ in range(40):
        start = draw.choice(known)
        keys = start[: draw.randint(0, len(start))]
        more = draw.randint(1, 4)
        keys = keys + list(range(fresh, fresh + more))
        fresh += more
        known.append(keys)
    cached = [keys for keys in known[1:] if draw.random() < 0.4]
    queue = []
    for _ in range(200 if seed == 7 else draw.randint(2, 60)):
        keys = draw.choice(known[1:])
        prompt = max(2, KEY_TOKENS * len(keys) - draw.randint(0, KEY_TOKENS - 1))
        queue.append([keys, prompt, draw.randint(1, 500), draw.randint(0, 5000)])
    return {
        "policy": policy, "page": PAGE, "key_tokens": KEY_TOKENS, "cached": cached, "queue": queue,
        "processed": 6000,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(queues()))

"""Traffic on which the native scheduler and vLLM's own are compared. Seeded: the same on every machine."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

Case = dict[str, Any]

KEY_TOKENS = 64
SETTINGS = (
    # name, block size, blocks, places, budget, reuse, requests, longest prompt and output, rate
    ("roomy", 16, 4000, 64, 512, True, 120, 600, 120, 8.0),
    ("no reuse", 16, 4000, 64, 512, False, 120, 600, 120, 8.0),
    ("tight", 16, 160, 32, 256, True, 120, 500, 200, 6.0),
    ("tight, no reuse", 16, 160, 32, 256, False, 120, 500, 200, 6.0),
    ("few places", 16, 2000, 4, 128, True, 80, 400, 60, 10.0),
    ("small blocks", 4, 700, 48, 200, True, 100, 400, 100, 12.0),
    ("large blocks", 64, 90, 48, 2048, True, 100, 2000, 150, 5.0),
    ("tiny budget", 32, 400, 32, 33, True, 60, 300, 80, 9.0),
    ("burst", 16, 300, 64, 400, True, 150, 300, 150, 1e6),
    ("preempting", 8, 120, 64, 128, True, 150, 120, 300, 30.0),
    ("latent", 64, 300, 48, 512, True, 120, 1500, 200, 6.0),
    ("latent, no reuse", 64, 120, 48, 512, False, 120, 1500, 200, 6.0),
    ("states", 64, 700, 32, 512, True, 120, 900, 150, 6.0),
    ("states, no reuse", 64, 400, 32, 512, False, 120, 900, 150, 6.0),
    ("states, tight", 64, 110, 24, 300, True, 120, 700, 200, 6.0),
    ("states, one chunk a block", 128, 300, 24, 128, True, 100, 900, 100, 4.0),
    ("states, wide budget", 64, 900, 48, 4096, True, 120, 1500, 80, 10.0),
    ("states, evicting", 64, 150, 8, 512, True, 150, 900, 60, 3.0),
)
STATE_GROUPS = 3
"""Layers with recurrent state in the hybrid cases, in groups as large as the attention layers': Qwen3.5's 45 of 60."""


def cases() -> list[Case]:
    """All cases, in the form that ``vllm_oracle.py`` reads."""
    return [_case(seed, *setting) for seed, setting in enumerate(SETTINGS)]


def ahead_cases() -> list[Case]:
    """The same traffic for an engine that decides each step when the one before it begins."""
    return [{**case, "options": {**case["options"], "async_scheduling": True}} for case in cases()]


OFFLOADED = (
    # name, like, blocks of host memory, seconds to move one
    ("offloading, roomy", "roomy", 3000, 2**-12),
    ("offloading, tight", "tight", 2000, 2**-12),
    ("offloading, evicting", "tight", 300, 2**-12),
    ("offloading, slow link", "tight", 1200, 2**-7),
    ("offloading, slow link, evicting", "tight", 250, 2**-7),
    ("offloading, too small", "tight", 40, 2**-8),
    ("offloading, few places", "few places", 700, 2**-9),
    ("offloading, large blocks", "large blocks", 160, 2**-8),
    ("offloading, tiny budget", "tiny budget", 200, 2**-9),
    ("offloading, burst", "burst", 600, 2**-10),
    ("offloading, preempting", "preempting", 500, 2**-11),
    ("offloading, latent", "latent", 300, 2**-9),
)


def offload_cases() -> list[Case]:
    """Traffic with host memory beyond the card, decided after each step and ahead of it."""
    found = []
    for seed, (name, like, blocks, block_s) in enumerate(OFFLOADED):
        case = _case(40 + seed, *next(setting for setting in SETTINGS if setting[0] == like))
        options = {**case["options"], "host_blocks": blocks, "host_block_s": block_s}
        found.append({**case, "name": name, "options": options})
        found.append({**case, "name": f"{name}, ahead", "options": {**options, "async_scheduling": True}})
    return found


DRAFTED = (
    # name, like, drafts a step, chance that one is accepted
    ("drafts, roomy", "roomy", 1, 0.8),
    ("drafts, no reuse", "no reuse", 2, 0.7),
    ("drafts, tight", "tight", 2, 0.7),
    ("drafts, few places", "few places", 3, 0.6),
    ("drafts, small blocks", "small blocks", 3, 0.9),
    ("drafts, large blocks", "large blocks", 1, 0.85),
    ("drafts, tiny budget", "tiny budget", 2, 0.5),
    ("drafts, burst", "burst", 1, 0.8),
    ("drafts, preempting", "preempting", 2, 0.6),
    ("drafts, latent", "latent", 1, 0.9),
)


def draft_cases() -> list[Case]:
    """Traffic with drafted tokens, whose acceptance is drawn, decided after each step and ahead of it."""
    return _drafted(60, DRAFTED)


def _drafted(first: int, settings: tuple[tuple[str, str, int, float], ...]) -> list[Case]:
    found = []
    for seed, (name, like, drafts, chance) in enumerate(settings):
        case = _case(first + seed, *next(setting for setting in SETTINGS if setting[0] == like))
        options = {**case["options"], "num_speculative_tokens": drafts, "acceptance": chance}
        found.append({**case, "name": name, "options": options})
        found.append({**case, "name": f"{name}, ahead", "options": {**options, "async_scheduling": True}})
    return found


DRAFTED_STATES = (
    # name, like, drafts a step, chance that one is accepted
    ("states and drafts", "states", 1, 0.8),
    ("states and drafts, no reuse", "states, no reuse", 2, 0.7),
    ("states and drafts, tight", "states, tight", 2, 0.7),
    ("states and drafts, one chunk a block", "states, one chunk a block", 3, 0.6),
    ("states and drafts, wide budget", "states, wide budget", 1, 0.85),
    ("states and drafts, evicting", "states, evicting", 3, 0.9),
)


def state_draft_cases() -> list[Case]:
    """Drafted tokens of models with recurrent state, which keep a state for each, after each step and ahead of it."""
    return _drafted(80, DRAFTED_STATES)


def _case(
    seed: int, name: str, block: int, blocks: int, places: int, budget: int, reuse: bool, count: int,
    prompts: int, outputs: int, rate: float,
) -> Case:  # fmt: skip
    draw = random.Random(seed)
    options = {
        "block_size": block,
        "num_gpu_blocks": blocks,
        "max_num_seqs": places,
        "max_num_batched_tokens": budget,
        "enable_prefix_caching": reuse,
    }
    if name.startswith("states"):
        options["state_groups"] = STATE_GROUPS
    if name.startswith("latent"):
        options["latent"] = 1
    return traffic(draw, name, options, count, (1, prompts), outputs, rate)


def traffic(
    draw: random.Random, name: str, options: dict[str, Any], count: int, prompts: tuple[int, int], outputs: int,
    rate: float,
) -> Case:  # fmt: skip
    """A case of ``count`` requests that often begin as an earlier one; ``prompts``: shortest and longest."""
    now, rows, next_key = 0.0, [], 1
    known: list[tuple[int, ...]] = []
    for _ in range(count):
        now += draw.expovariate(rate)
        prompt = draw.randint(*prompts)
        keys: tuple[int, ...] = ()
        if known and draw.random() < 0.6:
            earlier = draw.choice(known)
            keys = earlier[: draw.randint(0, len(earlier))]
        while len(keys) * KEY_TOKENS < prompt:
            keys += (next_key,)
            next_key += 1
        keys = keys[: -(-prompt // KEY_TOKENS)]
        known.append(keys[: prompt // KEY_TOKENS])
        rows.append([round(now, 6), prompt, draw.randint(1, outputs), list(keys)])
    return {
        "name": name, "options": options, "requests": rows, "key_tokens": KEY_TOKENS,
        "fixed_s": 0.015625, "token_s": 0.0001220703125,
    }  # fmt: skip


def digest(steps: list[list[tuple[int, int]]]) -> str:
    """One hash of what every step computed for every request."""
    plain = [[list(entry) for entry in step] for step in steps]
    return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()


def condensed(name: str, steps: list[list[tuple[int, int]]], times: list[list[float]]) -> dict[str, Any]:
    """What is kept of a run: count and hash of its steps, every 50th step, every request's times."""
    return {
        "name": name,
        "steps": len(steps),
        "sha256": digest(steps),
        "samples": {
            str(index): [list(entry) for entry in steps[index]] for index in range(0, len(steps), 50)
        },
        "times": [[round(first, 9), round(last, 9)] for first, last in times],
    }


if __name__ == "__main__":
    print(json.dumps(cases()))

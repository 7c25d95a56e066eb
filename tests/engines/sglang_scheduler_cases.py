"""Traffic on which the native scheduler with SGLang's rules and SGLang's own classes are compared. Seeded."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.engines.cases import Case, traffic

SETTINGS = (
    # name, page, pool tokens, places, chunk, max prefill, policy, eviction, conservativeness, reuse,
    # requests, longest prompt and output, rate
    ("roomy", 1, 60000, 64, 512, 16384, "fcfs", "lru", 1.0, True, 120, 600, 120, 8.0),
    ("paged", 64, 64000, 64, 512, 16384, "fcfs", "lru", 1.0, True, 120, 1500, 120, 8.0),
    ("no reuse", 16, 16000, 64, 512, 16384, "fcfs", "lru", 1.0, False, 120, 600, 120, 8.0),
    ("tight", 1, 2600, 32, 256, 16384, "fcfs", "lru", 1.0, True, 120, 500, 200, 6.0),
    ("tight pages", 16, 2560, 32, 256, 16384, "fcfs", "lru", 1.0, True, 120, 500, 200, 6.0),
    ("tight, no reuse", 16, 2560, 32, 256, 16384, "fcfs", "lru", 1.0, False, 120, 500, 200, 6.0),
    ("few places", 16, 32000, 4, 128, 16384, "fcfs", "lru", 1.0, True, 80, 400, 60, 10.0),
    ("no chunks", 16, 12800, 48, None, 1024, "fcfs", "lru", 1.0, True, 100, 900, 100, 8.0),
    ("small passes", 16, 12800, 48, 2048, 256, "fcfs", "lru", 1.0, True, 100, 400, 100, 8.0),
    ("retracting", 1, 1200, 64, 128, 16384, "fcfs", "lru", 0.3, True, 150, 120, 300, 30.0),
    ("retracting pages", 8, 1600, 64, 128, 16384, "fcfs", "lru", 0.3, True, 150, 120, 300, 30.0),
    ("conservative", 16, 3200, 64, 256, 16384, "fcfs", "lru", 1.4, True, 120, 300, 300, 20.0),
    ("burst", 16, 4800, 64, 400, 16384, "fcfs", "lru", 1.0, True, 150, 300, 150, 1e6),
    ("longest prefix", 16, 6400, 32, 512, 16384, "lpm", "lru", 1.0, True, 150, 600, 100, 20.0),
    ("hrrn", 16, 6400, 32, 512, 16384, "hrrn", "lru", 1.0, True, 150, 600, 100, 20.0),
    ("longest output", 16, 6400, 32, 512, 16384, "lof", "lru", 1.0, True, 150, 600, 100, 20.0),
    ("least often", 16, 3200, 32, 512, 16384, "fcfs", "lfu", 1.0, True, 150, 600, 60, 6.0),
    ("segmented", 16, 3200, 32, 512, 16384, "lpm", "slru", 1.0, True, 150, 600, 60, 6.0),
)  # fmt: skip


POLICIES = (
    # name, like, policy, configuration
    ("priority, tight", "tight", "priority", None),
    ("priority, tight pages", "tight pages", "priority", None),
    ("priority, segmented", "segmented", "priority", None),
    ("tails, tight", "tight", "tlru", {"threshold": 300, "next_prompt_estimate": 50}),
    ("tails, tight pages", "tight pages", "tlru", {"threshold": 128}),
    ("tails, segmented", "segmented", "tlru", {"threshold": 400, "next_prompt_estimate": 200}),
)


def policy_cases() -> list[Case]:
    """Traffic whose leaves are evicted by priority or tails first, on the card alone and with host memory."""
    found = []
    for seed, (name, like, policy, configured) in enumerate(POLICIES):
        case = _case(280 + seed, name, *next(setting for setting in SETTINGS if setting[0] == like)[1:])
        case = _with(case, radix_eviction_policy=policy, overlap=seed % 2 == 0)
        case["options"]["eviction_policy_config"] = configured
        hosted = _with(case, host_tokens=8000, host_token_s=2**-16, write_policy=WRITE_POLICIES[seed % 3])
        found += [case, {**hosted, "name": f"{name}, host"}]
    return found


STATES = (
    # name, like, page, pool tokens, places, chunk, conservativeness, states, requests, longest prompt and output, rate
    ("states, roomy", "roomy", 1, 120000, 32, 2048, 1.0, 600, 150, 1500, 300, 8.0),
    ("states, few", "roomy", 1, 60000, 16, 2048, 1.0, 80, 150, 1500, 300, 8.0),
    ("states, tight", "tight", 1, 9000, 16, 512, 1.0, 120, 120, 1200, 400, 6.0),
    ("states, small chunks", "tight", 1, 16000, 12, 200, 1.0, 64, 100, 900, 200, 6.0),
    ("states, pages", "tight pages", 64, 16000, 16, 512, 1.0, 90, 120, 1500, 300, 6.0),
    ("states, large pages", "paged", 128, 40960, 24, 1024, 1.0, 160, 120, 2500, 300, 6.0),
    ("states, retracting", "retracting", 1, 4000, 32, 256, 0.3, 200, 150, 400, 600, 30.0),
    ("states, longest prefix", "longest prefix", 1, 30000, 24, 1024, 1.0, 130, 150, 1500, 200, 20.0),
    ("states, segmented", "segmented", 1, 20000, 16, 1024, 1.0, 100, 150, 1500, 200, 8.0),
    ("states, burst", "burst", 1, 24000, 24, 1000, 1.0, 120, 120, 1000, 300, 1e6),
)  # fmt: skip


def state_cases() -> list[Case]:
    """Traffic of a model with recurrent states, decided after each step and with overlap."""
    found = []
    for seed, setting in enumerate(STATES):
        found += _both(_state_case(50 + seed, setting[0], setting), setting[0])
    return found


def _state_case(seed: int, name: str, setting: tuple[Any, ...]) -> Case:
    _, like, page, pool, places, chunk, conservativeness, states, *rest = setting
    most, policy, eviction = next(other for other in SETTINGS if other[0] == like)[5:8]
    case = _case(seed, name, page, pool, places, chunk, most, policy, eviction, conservativeness, True, *rest)
    return _with(case, state_slots=states)


def _both(case: Case, name: str) -> list[Case]:
    """The case after each step, and with overlap."""
    return [{**case, "name": name}, {**_with(case, overlap=True), "name": f"{name}, overlap"}]


def unbuffered_cases() -> list[Case]:
    """Traffic of a model with recurrent states whose requests hold no states but their own, and some with drafts."""
    found = []
    for seed, setting in enumerate(setting for setting in STATES if setting[2] == 1):
        case = _with(_state_case(170 + seed, f"{setting[0]}, no buffer", setting), no_buffer=True)
        found.append(case)
        if seed % 2:
            drafted = _with(case, num_speculative_tokens=2, acceptance=0.8)
            found.append({**drafted, "name": f"{case['name']}, drafts"})
    return found


def state_mixed_cases() -> list[Case]:
    """Recurrent states and mixed chunks, every other one with overlap; a few with drafts, one with ``no_buffer``."""
    found = []
    for seed, setting in enumerate(STATES):
        case = _state_case(190 + seed, f"{setting[0]}, mixed", setting)
        case = _with(case, mixed=True, overlap=seed % 2 == 0)
        found.append(case)
        if seed % 3 == 2:
            more = _with(case, num_speculative_tokens=2, acceptance=0.7)
            found.append({**more, "name": f"{case['name']}, drafts"})
    single = next(
        case for case in found if not case["options"]["overlap"] and case["options"]["page_size"] == 1
    )
    return [*found, {**_with(single, no_buffer=True), "name": f"{single['name']}, no buffer"}]


DRAFTED = (
    # name, like, drafts a step, chance that one is accepted, mixed chunks
    ("drafts, roomy", "roomy", 3, 0.8, False),
    ("drafts, paged", "paged", 1, 0.85, False),
    ("drafts, no reuse", "no reuse", 2, 0.7, False),
    ("drafts, tight", "tight", 3, 0.7, False),
    ("drafts, tight pages", "tight pages", 2, 0.6, False),
    ("drafts, few places", "few places", 3, 0.6, False),
    ("drafts, no chunks", "no chunks", 1, 0.9, False),
    ("drafts, retracting", "retracting", 3, 0.6, False),
    ("drafts, retracting pages", "retracting pages", 2, 0.8, False),
    ("drafts, burst", "burst", 1, 0.8, False),
    ("drafts, longest prefix", "longest prefix", 3, 0.9, False),
    ("drafts, segmented", "segmented", 5, 0.8, False),
    ("drafts, mixed, tight", "tight", 2, 0.7, True),
    ("drafts, mixed, tight pages", "tight pages", 3, 0.8, True),
    ("drafts, mixed, retracting", "retracting", 1, 0.7, True),
    ("drafts, mixed, burst", "burst", 2, 0.85, True),
)


def draft_cases() -> list[Case]:
    """Traffic with drafted tokens, whose acceptance is drawn, decided after each step and with overlap."""
    found = []
    for seed, (name, like, drafts, chance, mixed) in enumerate(DRAFTED):
        case = _case(120 + seed, *next(setting for setting in SETTINGS if setting[0] == like))
        found += _both(_with(case, num_speculative_tokens=drafts, acceptance=chance, mixed=mixed), name)
    return found


DRAFTED_STATES = (
    # name, like, drafts a step, chance that one is accepted
    ("states and drafts, roomy", "states, roomy", 3, 0.8),
    ("states and drafts, few", "states, few", 2, 0.7),
    ("states and drafts, tight", "states, tight", 3, 0.7),
    ("states and drafts, small chunks", "states, small chunks", 1, 0.8),
    ("states and drafts, pages", "states, pages", 3, 0.6),
    ("states and drafts, large pages", "states, large pages", 2, 0.85),
    ("states and drafts, retracting", "states, retracting", 3, 0.6),
    ("states and drafts, longest prefix", "states, longest prefix", 2, 0.9),
    ("states and drafts, segmented", "states, segmented", 5, 0.8),
    ("states and drafts, burst", "states, burst", 1, 0.8),
)


def state_draft_cases() -> list[Case]:
    """Drafted tokens of models with recurrent states, decided after each step and with overlap."""
    found = []
    for seed, (name, like, drafts, chance) in enumerate(DRAFTED_STATES):
        case = _state_case(150 + seed, name, next(setting for setting in STATES if setting[0] == like))
        found += _both(_with(case, num_speculative_tokens=drafts, acceptance=chance), name)
    case = _state_case(165, "states, few", next(setting for setting in STATES if setting[0] == "states, few"))
    draw, rows = random.Random(165), []
    for arrival_s, prompt, _, keys in case["requests"]:  # the last check often passes where a state is left
        rows.append([arrival_s, prompt, 256 - prompt % 256 + 256 - draw.randint(1, 4), keys])
    case = _with({**case, "requests": rows}, num_speculative_tokens=5, acceptance=0.95)
    return found + _both(case, "states and drafts, ending at states")


HOSTED = (
    # name, like, host tokens, seconds a token
    ("host, roomy", "roomy", 60000, 2**-17),
    ("host, tight", "tight", 20000, 2**-17),
    ("host, tight pages", "tight pages", 16000, 2**-16),
    ("host, evicting", "tight", 4000, 2**-16),
    ("host, evicting pages", "tight pages", 3200, 2**-16),
    ("host, slow link", "tight pages", 9600, 2**-13),
    ("host, too small", "tight", 600, 2**-16),
    ("host, retracting", "retracting", 6000, 2**-16),
    ("host, longest prefix", "longest prefix", 12800, 2**-16),
    ("host, segmented", "segmented", 6400, 2**-16),
)
WRITE_POLICIES = ("write_through", "write_through_selective", "write_back")


def host_cases() -> list[Case]:
    """Traffic with host memory behind the card, by every policy of writing to it."""
    found = []
    for seed, (name, like, tokens, token_s) in enumerate(HOSTED):
        case = _case(80 + seed, *next(setting for setting in SETTINGS if setting[0] == like))
        for policy in WRITE_POLICIES:
            more = {"host_tokens": tokens, "host_token_s": token_s, "write_policy": policy}
            found.append({**case, "name": f"{name}, {policy}", "options": {**case["options"], **more}})
    return found


def host_overlap_cases() -> list[Case]:
    """The same with overlap scheduling, the engine's default."""
    return [_with(case, overlap=True) for case in host_cases()]


def host_draft_cases() -> list[Case]:
    """Drafted tokens and host memory: each traffic by one policy of writing, after every step and with overlap."""
    found = []
    for seed, (name, like, tokens, token_s) in enumerate(HOSTED):
        case = _case(220 + seed, *next(setting for setting in SETTINGS if setting[0] == like))
        policy = WRITE_POLICIES[seed % len(WRITE_POLICIES)]
        case = _with(case, host_tokens=tokens, host_token_s=token_s, write_policy=policy)
        drafted = _with(case, num_speculative_tokens=1 + seed % 3, acceptance=0.75)
        found += _both(drafted, f"{name}, {policy}, drafts")
    return found


HOSTED_STATES = (
    # name, like, host tokens, host states, seconds a token
    ("states and host, roomy", "states, roomy", 200000, 1200, 2**-19),
    ("states and host, few", "states, few", 120000, 200, 2**-19),
    ("states and host, tight", "states, tight", 30000, 300, 2**-18),
    ("states and host, few there", "states, few", 120000, 30, 2**-18),
    ("states and host, evicting", "states, tight", 10000, 150, 2**-18),
    ("states and host, pages", "states, pages", 40000, 200, 2**-18),
    ("states and host, slow link", "states, small chunks", 40000, 150, 2**-14),
    ("states and host, retracting", "states, retracting", 12000, 400, 2**-18),
    ("states and host, longest prefix", "states, longest prefix", 60000, 260, 2**-18),
    ("states and host, segmented", "states, segmented", 40000, 200, 2**-18),
)
STATE_TOKENS = 512
"""A state's bytes ÷ a token's."""


def host_state_cases() -> list[Case]:
    """Recurrent states and host memory, by every policy of writing, every other one with overlap; some with drafts."""
    found = []
    for seed, (name, like, tokens, states, token_s) in enumerate(HOSTED_STATES):
        case = _state_case(250 + seed, name, next(setting for setting in STATES if setting[0] == like))
        case = _with(
            case, host_tokens=tokens, host_states=states, host_state_tokens=STATE_TOKENS, host_token_s=token_s,
            overlap=seed % 2 == 0,
        )  # fmt: skip
        found += [{**_with(case, write_policy=one), "name": f"{name}, {one}"} for one in WRITE_POLICIES]
        if seed % 3 == 1:
            more = _with(
                case, write_policy=WRITE_POLICIES[seed // 3], num_speculative_tokens=2, acceptance=0.75
            )
            found.append({**more, "name": f"{name}, drafts"})
    return found


def cases() -> list[Case]:
    """All cases, in the form that ``sglang_scheduler_oracle.py`` reads."""
    return [_case(seed, *setting) for seed, setting in enumerate(SETTINGS)]


def overlap_cases() -> list[Case]:
    """The same traffic with overlap scheduling, the engine's default."""
    return [_with(case, overlap=True) for case in cases()]


def mixed_cases() -> list[Case]:
    """Those that cut prompts, with mixed chunks; every other one without overlap."""
    cut = [case for case in cases() if case["options"]["chunked_prefill_size"]]
    return [_with(case, mixed=True, overlap=place % 2 == 0) for place, case in enumerate(cut)]


def _with(case: Case, **more: float | str) -> Case:
    return {**case, "options": {**case["options"], **more}}


def _case(
    seed: int, name: str, page: int, pool: int, places: int, chunk: int | None, most: int, policy: str,
    eviction: str, conservativeness: float, reuse: bool, count: int, prompts: int, outputs: int, rate: float,
) -> Case:  # fmt: skip
    draw = random.Random(1000 + seed)
    options = {
        "page_size": page,
        "max_total_tokens": pool,
        "max_running_requests": places,
        "chunked_prefill_size": chunk,
        "max_prefill_tokens": most,
        "schedule_policy": policy,
        "radix_eviction_policy": eviction,
        "schedule_conservativeness": conservativeness,
        "disable_radix_cache": not reuse,
    }
    return traffic(draw, name, options, count, (2, prompts), outputs, rate)


if __name__ == "__main__":
    print(json.dumps(cases()))

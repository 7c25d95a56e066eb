"""Traffic for prompts and outputs on servers of their own, by SGLang's rules. Seeded."""

from __future__ import annotations

import random

from tests.engines.cases import Case, traffic

SETTINGS = (
    # name, page, prompt side: pool, places, chunk, reuse; decode side: pool, places, extra slots, reserved tokens;
    # wire seconds a token, requests, longest prompt and output, rate
    ("roomy", 1, 60000, 64, 512, True, 60000, 64, 0, 512, 2**-17, 100, 600, 120, 8.0),
    ("paged", 64, 64000, 64, 512, True, 64000, 64, 0, 512, 2**-17, 100, 1500, 120, 8.0),
    ("small caches", 16, 16000, 64, 512, True, 6400, 64, 0, 128, 2**-17, 100, 600, 200, 8.0),
    ("held back", 1, 20000, 64, 512, True, 2400, 32, 0, 64, 2**-17, 100, 500, 200, 8.0),
    ("held back, pages", 32, 20000, 64, 512, True, 2880, 32, 0, 64, 2**-17, 100, 500, 200, 8.0),
    ("retracting", 1, 8000, 64, 256, True, 1400, 64, 0, 8, 2**-17, 120, 120, 300, 30.0),
    ("retracting, pages", 8, 8000, 64, 256, True, 1600, 64, 0, 8, 2**-17, 120, 120, 300, 30.0),
    ("few places", 16, 32000, 32, 256, True, 32000, 4, 0, 512, 2**-17, 80, 400, 60, 10.0),
    ("few places, extra slots", 16, 32000, 32, 256, True, 32000, 4, 8, 512, 2**-17, 80, 400, 60, 10.0),
    ("few prompt places", 16, 32000, 3, 256, True, 32000, 32, 0, 512, 2**-15, 80, 400, 60, 10.0),
    ("small prompt cache", 16, 2400, 32, 256, True, 32000, 32, 0, 512, 2**-13, 100, 600, 100, 8.0),
    ("slow wire", 16, 12000, 32, 256, True, 12000, 32, 0, 128, 2**-12, 100, 600, 100, 6.0),
    ("small chunks", 16, 16000, 32, 64, True, 8000, 32, 0, 128, 2**-14, 80, 900, 100, 6.0),
    ("no chunks", 16, 16000, 32, None, True, 8000, 32, 0, 128, 2**-14, 80, 900, 100, 6.0),
    ("no reuse", 16, 16000, 32, 512, False, 6400, 32, 0, 64, 2**-15, 100, 600, 200, 8.0),
    ("burst", 16, 8000, 32, 400, True, 4800, 48, 0, 64, 2**-16, 120, 300, 150, 1e6),
    ("long answers", 1, 20000, 64, 512, True, 1000, 32, 0, 1, 2**-17, 60, 300, 500, 6.0),
    ("long answers, pages", 16, 20000, 64, 512, True, 1120, 32, 0, 4, 2**-17, 60, 300, 500, 6.0),
    ("many extra slots", 16, 32000, 32, 256, True, 32000, 2, 12, 512, 2**-12, 80, 400, 20, 20.0),
    ("longest prefix", 16, 8000, 3, 256, True, 32000, 32, 0, 512, 2**-14, 100, 600, 60, 20.0),
    ("short answers", 16, 12000, 32, 512, True, 3200, 32, 0, 64, 2**-16, 120, 500, 3, 20.0),
)  # fmt: skip


DRAFTED = (
    # name, like, drafts a step, chance that one is accepted
    ("drafts", "roomy", 1, 0.8),
    ("drafts, pages", "held back, pages", 2, 0.7),
    ("drafts, held back", "held back", 1, 0.85),
    ("drafts, retracting", "retracting", 1, 0.6),
    ("drafts, retracting pages", "retracting, pages", 3, 0.7),
    ("drafts, long answers", "long answers, pages", 2, 0.6),
    ("drafts, extra slots", "many extra slots", 1, 0.8),
    ("drafts, short answers", "short answers", 3, 0.9),
)


def draft_cases() -> list[Case]:
    """The same traffic with drafted tokens on the decode side."""
    found, plain = [], {case["name"]: case for case in cases()}
    for name, like, drafts, chance in DRAFTED:
        for end in ("", ", overlap"):
            case = plain[f"{like}{end}"]
            more = {"num_speculative_tokens": drafts, "acceptance": chance}
            found.append({**case, "name": f"{name}{end}", "decode": {**case["decode"], **more}})
    return found


def cases() -> list[Case]:
    """Each deciding after every step, and with overlap."""
    found = []
    for seed, (name, page, pool, places, chunk, reuse, *rest) in enumerate(SETTINGS):
        tokens, running, extra, reserved, token_s, count, prompts, outputs, rate = rest
        options = {
            "page_size": page,
            "max_total_tokens": pool,
            "max_running_requests": places,
            "chunked_prefill_size": chunk,
            "max_prefill_tokens": 1024 if chunk is None else 16384,
            "schedule_policy": "lpm" if name == "longest prefix" else "fcfs",
            "radix_eviction_policy": "lru",
            "schedule_conservativeness": 1.0,
            "disable_radix_cache": not reuse,
            "wire_fixed_s": 2**-10,
            "wire_token_s": token_s,
        }
        decode = {
            "max_total_tokens": tokens,
            "max_running_requests": running,
            "extra_slots": extra,
            "num_reserved_decode_tokens": reserved,
        }
        case = traffic(random.Random(2000 + seed), name, options, count, (2, prompts), outputs, rate)
        found.append({**case, "decode": decode})
        found.append({
            **case, "name": f"{name}, overlap", "decode": decode, "options": {**options, "overlap": True},
        })  # fmt: skip
    return found

"""Asks SGLang's own SchedulePolicy and RadixCache how it would order a queue: cases on stdin, orders on stdout.

A case: {"policy", "page", "key_tokens", "cached": [keys, ...], "queue": [[keys, prompt, output, arrived], ...],
"processed"}. Runs without a GPU in the environment of ``run.sh``; torchvision's wheel needs a stand-in first.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import torch

from windtunnel.endpoint.vllm import stand_ins

stand_ins.install()
from sglang.srt.managers import schedule_policy as sp  # noqa: E402
from sglang.srt.mem_cache.base_prefix_cache import InsertParams, MatchPrefixParams  # noqa: E402
from sglang.srt.mem_cache.radix_cache import RadixCache, RadixKey  # noqa: E402


def tokens(keys: list[int], key_tokens: int, count: int) -> list[int]:
    return [key * key_tokens + place for key in keys for place in range(key_tokens)][:count]


def matched(request: SimpleNamespace, tree: RadixCache, ids: list[int] | None = None) -> object:
    """What the scheduler's own helper notes on a request, without the rest of an engine."""
    ids = ids if ids is not None else request.origin_input_ids
    found = tree.match_prefix(MatchPrefixParams(key=RadixKey(token_ids=ids[:-1])))
    request.prefix_len = request.num_matched_prefix_tokens = found.device_prefix_len
    request.last_node = found.last_device_node
    return found


def order(case: dict) -> list[int]:
    sp.match_kv_cache = matched
    tree, size = RadixCache.create_simulated(page_size=case["page"]), case["key_tokens"]
    for keys in case["cached"]:
        ids = tokens(keys, size, size * len(keys))
        tree.insert(InsertParams(key=RadixKey(token_ids=ids), value=torch.arange(len(ids))))
    queue = [
        SimpleNamespace(
            rid=place, origin_input_ids=tokens(keys, size, prompt), output_ids=[], extra_key=None, cache_salt=None,
            sampling_params=SimpleNamespace(max_new_tokens=output), arrival_processed_tokens=arrived, priority=0,
        )
        for place, (keys, prompt, output, arrived) in enumerate(case["queue"])
    ]  # fmt: skip
    policy = sp.SchedulePolicy.__new__(sp.SchedulePolicy)
    policy.policy = policy._validate_and_adjust_policy(case["policy"], tree)
    policy.tree_cache, policy.enable_priority_scheduling, policy.priority_sign = tree, False, 1
    policy.waiting_queue_radix_tree = RadixCache.create_simulated()
    active = policy._determine_active_policy(queue)
    if active == sp.CacheAgnosticPolicy.LOF:
        policy._sort_by_longest_output(queue, False, 1)
    elif isinstance(active, sp.CacheAwarePolicy):
        later = policy._compute_prefix_matches(queue, active)
        if active == sp.CacheAwarePolicy.LPM:
            policy._sort_by_longest_prefix(queue, later)
        else:
            policy._sort_by_hrrn(queue, later, case["processed"])
    return [request.rid for request in queue]


if __name__ == "__main__":
    print(json.dumps([order(case) for case in json.load(sys.stdin)]))

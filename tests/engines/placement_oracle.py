"""Asks SGLang's and vLLM's own EPLB where they put experts: cases on stdin, on stdout the busiest rank over the mean.

A case: {"loads": [[...], ...], "ranks", "per_node", "redundant", "groups"}; slots are whole.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from windtunnel.endpoint.vllm import stand_ins

stand_ins.install()
from sglang.srt.eplb import eplb_algorithms  # noqa: E402
from vllm.distributed.eplb.policy.default import DefaultEplbPolicy  # noqa: E402


def placed(case: dict) -> list[list[float]]:
    """By SGLang, by vLLM."""
    loads, ranks, groups = torch.tensor(case["loads"]), case["ranks"], case["groups"]
    nodes, slots = ranks // case["per_node"], loads.shape[1] + case["redundant"]
    chosen = eplb_algorithms.compute_algorithm("auto", groups or None, nodes)
    sglang, _, _ = eplb_algorithms.rebalance_experts(
        loads[None], slots, slots // ranks, groups or None, nodes, chosen
    )
    vllm = DefaultEplbPolicy.rebalance_experts(loads, slots, groups or 1, nodes, ranks)
    return [busiest(sglang.long(), loads, ranks), busiest(table(vllm), loads, ranks)]


def table(found: object) -> torch.Tensor:
    """Releases answer with the table alone or with others behind it."""
    first = found[0] if isinstance(found, tuple) else found
    return torch.as_tensor(np.asarray(first)).long()


def busiest(held: torch.Tensor, loads: torch.Tensor, ranks: int) -> list[float]:
    replicas = torch.zeros_like(loads).scatter_add_(1, held, torch.ones(held.shape))
    each = (loads.gather(1, held) / replicas.gather(1, held)).reshape(len(loads), ranks, -1).sum(-1)
    return [round(float(x), 4) for x in each.max(1).values * ranks / loads.sum(1)]


if __name__ == "__main__":
    print(json.dumps([placed(case) for case in json.load(sys.stdin)]))

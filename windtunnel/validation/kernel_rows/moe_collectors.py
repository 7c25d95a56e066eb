"""What the collectors of mixture-of-experts tables did that their rows do not say, by library and release.

All of it is read from the collectors (aiconfigurator) and from the engines that they call.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.cost.tuned_experts import OLD
from windtunnel.validation.routing import RankLoad, rank_load
from windtunnel.validation.tables import Table

REMOTE_ROWS = ("0.5.9", "0.5.10")
"""Versions of SGLang whose tables were collected with rows of other ranks sent to a rank's first expert."""

SPARE_ROWS = {("trtllm", "1.0.0"): "most", ("vllm", "0.14.0"): "least"}
"""Libraries and versions whose tables were collected while loads were rounded to whole rows, and which experts received
what was missing (aiconfigurator's ``power_law_logits_v3``; the second as its rows show: one token of eight choices
reads eight experts of a rank that has 24). Later tables do not show it."""

PLAIN_ROUTERS = {(4096.0, 8.0), (6144.0, 8.0), (2816.0, 128.0), (2048.0, 60.0)}
"""(hidden size, experts) of the models without a routing method of their own (Mixtral, Gemma 4, Qwen 1.5): version
0.5.14 was still collected so for these, others through SGLang's own layer."""

WITHOUT_GATE = {(1856.0, 6.0, 128.0), (2688.0, 22.0, 512.0), (5120.0, 22.0, 512.0)}
"""(width, top-k, experts) of Nemotron 3's layers: squared ReLU, two products where others have three."""

GATED_BY_ALL = {("sglang", "0.5.9"), ("sglang", "0.5.10"), ("vllm", "0.12.0"), ("vllm", "0.14.0")}
"""Libraries and versions whose tables were collected with a gate whatever the model."""

OLD_RULES = {"0.12.0", "0.14.0"}
"""Versions of vLLM whose Triton experts have the tiles that SGLang's have."""


BLOCK_ROWS, DEVICE_ROWS = 128, 4096
"""Rows of an expert from which SGLang's DeepEP prompts are fitted to: their collector does not pad even loads
to blocks of 128, as DeepEP does, so that with fewer rows a block runs on one expert's weights and others are not read.
And rows of a rank: it launches the layer from Python and waits for it."""

HOST_S = 0.39e-3
"""What that takes whatever the work, by the smallest 40 of the H100's shapes; taken for hosts of other cards, too."""


def gates(rows: Table, source: str) -> Floats:
    """Up products of each row: two, or one where the layer has no gate and the collector followed the model."""
    if "nongated" in source:
        return np.ones(len(rows))
    layers = zip(
        rows.number("inter_size").tolist(), rows.number("topk").tolist(), rows.number("num_experts").tolist()
    )
    plain = np.array([layer in WITHOUT_GATE for layer in layers])
    by_model = np.array([release not in GATED_BY_ALL for release in _releases(rows)])
    engine = rows.text("library") != "trtllm"  # which names such rows apart
    return np.where(plain & by_model & engine, 1.0, 2.0)


def library_name(kernel: str, library: str, version: str) -> str:
    """``kernel@engine``; Triton's experts of releases that had other tiles are a kernel of their own."""
    old = kernel == "triton" and library == "vllm" and version in OLD_RULES
    return f"{kernel}@{library}{OLD if old else ''}"


def loads(rows: Table, kernel: str) -> list[RankLoad]:
    """What reaches the rank that is timed, row by row."""
    tokens, top_k, ranks = rows.number("num_tokens"), rows.number("topk"), rows.number("moe_ep_size", 1.0)
    experts = rows.number("num_experts")
    words = rows.text("distribution").tolist()
    exponents = [float(word.rsplit("_", 1)[1]) if word.startswith("power_law") else 0.0 for word in words]
    spare = [SPARE_ROWS.get(release, "") for release in _releases(rows)]
    columns = zip(tokens.tolist(), top_k.tolist(), experts.tolist(), ranks.tolist(), exponents, spare)
    found = [rank_load(int(t), int(k), int(e), int(r), a, spare=s) for t, k, e, r, a, s in columns]
    if kernel == "deepgemm" and (rows.text("table") == "wideep_context_moe").all():
        return [load if a else load.in_blocks(BLOCK_ROWS) for load, a in zip(found, exponents)]
    if kernel not in ("triton", "marlin") or not rows.has("library_version"):
        return found
    plain = [pair in PLAIN_ROUTERS for pair in zip(rows.number("hidden_size").tolist(), experts.tolist())]
    newer = (
        np.array(plain) & (kernel == "triton") & np.isin(rows.text("moe_dtype"), ("bfloat16", "fp8_block"))
    )
    sent = np.isin(rows.text("library_version"), REMOTE_ROWS) | newer
    sent &= (rows.text("library") == "sglang") & (ranks > 1)
    return [
        load.with_remote_rows(int(t), int(k)) if remote else load
        for load, t, k, remote in zip(found, tokens.tolist(), top_k.tolist(), sent.tolist())
    ]


def by_host(rows: Table, which: str) -> list[tuple[Table, float]]:
    """Rows that time a layer as engines run it; those of ``wideep_context_moe`` that do not, and their host's time."""
    if which != "wideep_context_moe":
        return [(rows, 0.0)]
    whole = _whole_blocks(rows)
    return [
        (part, host_s)
        for part, host_s in ((rows.where(whole), 0.0), (rows.where(~whole), HOST_S))
        if len(part)
    ]


def _whole_blocks(rows: Table) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    received = rows.number("num_tokens") * rows.number("topk") / rows.number("moe_ep_size")
    local = rows.number("num_experts") / rows.number("moe_ep_size")
    return np.asarray((received >= BLOCK_ROWS * local) & (received >= DEVICE_ROWS))


def _releases(rows: Table) -> list[tuple[str, str]]:
    if not rows.has("library_version"):
        return [(library, "") for library in rows.text("library").tolist()]
    return list(zip(rows.text("library").tolist(), rows.text("library_version").tolist()))

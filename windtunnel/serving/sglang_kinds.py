"""Which scheduler decides as SGLang does: with drafted tokens, recurrent states, host memory, or several of them."""

from __future__ import annotations

from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.memory import CardMemory
from windtunnel.serving.prefill_budget import SglangOptions
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sglang_drafting import SglangDraftingScheduler
from windtunnel.serving.sglang_host import SglangHostDraftingScheduler, SglangHostScheduler
from windtunnel.serving.sglang_host_states import SglangHostStateDraftingScheduler, SglangHostStateScheduler
from windtunnel.serving.sglang_scheduler import SglangScheduler
from windtunnel.serving.sglang_state_drafting import SglangStateDraftingScheduler
from windtunnel.serving.sglang_states import SglangStateScheduler


def sglang_scheduler_for(
    options: SchedulerOptions,
    sglang: SglangOptions,
    memory: CardMemory,
    tiers: KvTiers | None,
    host_states: int,
) -> SglangScheduler:
    """The scheduler that these options need; with storage behind host memory drafts are spread evenly.

    Args:
        host_states: recurrent states for which host memory has places.
    """
    drafts, slots = options.num_speculative_tokens > 0, memory.state_slots
    if slots and tiers is not None:
        kind = SglangHostStateDraftingScheduler if drafts else SglangHostStateScheduler
        return kind(options, sglang, tiers, slots, host_states, memory.state_bytes / memory.token_bytes)
    if slots:
        stated = SglangStateDraftingScheduler if drafts else SglangStateScheduler
        return stated(options, sglang, slots)
    if tiers is not None and len(tiers.tiers) == 1:
        hosted = SglangHostDraftingScheduler if drafts else SglangHostScheduler
        return hosted(options, sglang, tiers)
    if tiers is None and drafts:
        return SglangDraftingScheduler(options, sglang)
    return SglangScheduler(options, sglang, tiers)

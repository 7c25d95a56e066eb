"""Recurrent states in SGLang's own classes: the pool that holds them, what prompts and decoding leave for the tree.

``extra_buffer`` as it is SGLang's default for Qwen3.5: a request holds the state it computes and as many to track it in
as batches are under way; ``no_buffer`` (its default without overlap and with pages of one token): the former alone. No
tensor is computed: states are numbers of a pool.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt import runtime_context
from sglang.srt.configs.mamba_utils import Mamba2CacheParams, Mamba2StateDType, Mamba2StateShape
from sglang.srt.managers import schedule_batch as sb
from sglang.srt.managers.scheduler_components.batch_result_processor import SchedulerBatchResultProcessor
from sglang.srt.mem_cache.memory_pool import HybridReqToTokenPool
from sglang.srt.runtime_context import mamba_track_grid

KERNEL_CHUNK = 64
TRACK_INTERVAL = 256


def settings(page: int, buffered: bool) -> dict[str, Any]:
    """What an engine's options come to; ``buffered``: ``extra_buffer``."""
    server = SimpleNamespace(_mamba_cache_chunk_size=max(KERNEL_CHUNK, page))
    runtime_context.get_server_args = lambda: server
    runtime_context.get_parallel().override_permanently(dcp_enabled=False)
    return {
        "enable_mamba_extra_buffer": buffered,
        "mamba_track_interval": TRACK_INTERVAL,
        "mamba_max_states_per_path": -1,
    }


def pool(options: dict[str, Any], context: int) -> HybridReqToTokenPool:
    """Rows of requests and ``state_slots`` states, each one number large."""
    shape = Mamba2StateShape(
        conv=[(1, 1)], temporal=(1, 1, 1), intermediate_size=1, conv_dim=1, ssm_state_size=1, num_heads=1,
        head_dim=1, state_size=1, conv_kernel=2,
    )  # fmt: skip
    kinds = Mamba2StateDType(conv=torch.float32, temporal=torch.float32)
    return HybridReqToTokenPool(
        size=options["max_running_requests"], mamba_size=options["state_slots"], mamba_spec_state_size=0,
        max_context_len=context, device="cpu", enable_memory_saver=False,
        cache_params=Mamba2CacheParams(shape=shape, dtype=kinds, layers=[0]), mamba_layer_ids=[0],
        enable_mamba_extra_buffer=not options.get("no_buffer"), enable_overlap_schedule=bool(options.get("overlap")),
    )  # fmt: skip


class Results(SchedulerBatchResultProcessor):
    """The engine's own, without what belongs to its outputs."""

    def _maybe_collect_routed_experts(self, req: Any) -> None:
        pass

    def _maybe_collect_indexer_topk(self, req: Any) -> None:
        pass

    def _maybe_collect_customized_info(self, i: int, req: Any, logits_output: Any) -> None:
        pass

    def _prepare_kv_cache_release(self, req: Any) -> None:
        pass


class Tracker:
    """Tells the engine's own code which batch is prepared and which one is over."""

    def __init__(self, rows: HybridReqToTokenPool, tree: Any, overlap: bool, buffered: bool) -> None:
        self.buffered = buffered
        self.rows, self.tree, self.overlap = rows, tree, overlap
        self._batch = SimpleNamespace(
            model_config=SimpleNamespace(hf_text_config=SimpleNamespace()),
            tree_cache=tree,
            req_to_token_pool=rows,
        )
        self._over = object.__new__(Results)
        for name in ("draft_worker", "decode_offload_manager", "hisparse_coordinator"):
            object.__setattr__(self._over, name, None)
        object.__setattr__(self._over, "tree_cache", tree)

    def extend(self, request: Any) -> None:
        """A chunk of its prompt was given room."""
        if self.buffered:
            sb.ScheduleBatch._mamba_radix_cache_v2_req_prepare_for_extend(self._batch, request)
        request.kv.mamba_cow_src_index, request.kv.mamba_needs_clear = None, False

    def decode(self, requests: list[Any]) -> SimpleNamespace:
        """A decode batch was given room; what ``finish`` wants to know of it."""
        if not self.buffered:
            plain = SimpleNamespace(is_none=lambda: True)
            return SimpleNamespace(mamba_track_mask_cpu=None, spec_algorithm=plain)
        grid = mamba_track_grid(self.tree.page_size)
        for request in requests:
            request.decode_batch_idx += 1
        lengths = [request.kv.kv_committed_len for request in requests]
        return SimpleNamespace(
            mamba_track_mask_cpu=[length % grid == 0 for length in lengths],
            mamba_track_mask_next_cpu=[length % grid == grid - 1 for length in lengths] if self.overlap else None,
            mamba_decode_batch_idx_cpu=[request.decode_batch_idx for request in requests],
            mamba_track_buffer_indices=[request.kv.mamba_next_track_idx for request in requests],
            req_to_token_pool=self.rows, spec_algorithm=SimpleNamespace(is_none=lambda: True),
        )  # fmt: skip

    def finish(self, request: Any, batch: SimpleNamespace, place: int) -> None:
        """Its token of a decode batch is known; where it is done, all it holds goes to the tree or back."""
        result = SimpleNamespace(num_correct_drafts_per_req_cpu=None)
        self._over._handle_finish_state_updated_req(request, batch, result, place, None)

    def take_back(self, request: Any) -> None:
        """It was looked up and is not admitted after all."""
        request.kv.mamba_cow_src_index, request.kv.mamba_needs_clear = None, False
        if request.kv.holds_mamba:
            self.rows.mamba_allocator.free(request.kv.mamba_pool_idx.unsqueeze(-1))
            request.kv.mamba_pool_idx = None

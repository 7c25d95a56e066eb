"""Drafted tokens (EAGLE or MTP, one chain) in SGLang's own classes: room for checks, and what comes of them.

The engine's own functions say how many slots a check needs, take them, add accepted tokens to requests and give back
what finished requests hold. Played here: the kernels that write rows of slots, and which drafts are accepted.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt.managers import schedule_batch as sb
from sglang.srt.managers.scheduler_components.batch_result_processor import SchedulerBatchResultProcessor
from sglang.srt.mem_cache import allocation
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode
from sglang.srt.runtime_context import get_parallel
from sglang.srt.speculative.eagle_utils import eagle_prepare_for_decode
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

from windtunnel.serving.acceptance import accepted

ALGORITHM = "EAGLE"


def settings(drafts: int) -> dict[str, Any]:
    """What an engine's options come to."""
    return {
        "speculative_algorithm": ALGORITHM,
        "speculative_num_steps": drafts,
        "speculative_eagle_topk": 1,
        "speculative_num_draft_tokens": drafts + 1,
    }


class Results(SchedulerBatchResultProcessor):
    """The engine's own, without what belongs to its outputs and figures."""

    def _nothing(self, *args: Any, **more: Any) -> None:
        pass

    _maybe_collect_routed_experts = _maybe_collect_indexer_topk = _maybe_collect_customized_info = _nothing  # type: ignore[assignment]
    _prepare_kv_cache_release = materialize_sampling_mask_output = move_logprobs_to_cpu = _nothing  # type: ignore[assignment]
    _validate_pp_skip_output_comm = advance_grammar_fsm = _nothing  # type: ignore[assignment]

    @staticmethod
    def _get_prefill_hidden_capture_mode(batch: Any) -> CaptureHiddenMode:
        return CaptureHiddenMode.NULL


class Quiet:
    """Takes any call and does nothing."""

    num_generated_tokens = forward_ct_decode = 0

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: None


def results(tree: Any, allocator: Any, overlap: bool) -> Results:
    """The engine's code that a finished step is given to."""
    found = object.__new__(Results)
    quiet = Quiet()
    for name, value in {
        "is_generation": True, "enable_overlap": overlap, "enable_overlap_mlx": False, "tree_cache": tree,
        "token_to_kv_pool_allocator": allocator, "metrics_reporter": quiet, "model_worker": quiet,
        "output_streamer": quiet, "draft_worker": None, "decode_offload_manager": None,
        "hisparse_coordinator": None, "beam_coordinator": None, "metrics_collector": quiet,
        "model_config": SimpleNamespace(self_opened_think_start_ids=None, think_end_ids=None),
    }.items():  # fmt: skip
        object.__setattr__(found, name, value)
    return found


class Checks:
    """Drafts of every decoding request, ``drafts`` each step, accepted one after the other by ``chance``."""

    def __init__(self, engine: Any, options: dict[str, Any]) -> None:
        self.drafts, self.chance = options["num_speculative_tokens"], options["acceptance"]
        self.algorithm = SpeculativeAlgorithm.from_string(ALGORITHM)
        self.rows, self.tree, self.allocator = engine.rows, engine.tree, engine.allocator
        self.over = results(engine.tree, engine.allocator, engine.overlap)
        self.tracks: list[Any] = []  # where the check that was begun last would leave states
        get_parallel().override_permanently(dcp_enabled=False, attn_dcp_size=1)
        allocation.attention_backends = lambda: ("torch_native", "torch_native")
        allocation.assign_req_to_token_pool_func = _write_rows

    def need(self, requests: list[Any]) -> int:
        """Slots of the next check, as the engine reckons them."""
        return sb.ScheduleBatch._new_tokens_required_next_decode_spec_v2(
            None, requests, self.allocator.page_size
        )

    def take(self, requests: list[Any]) -> None:
        """Those slots."""
        rows = torch.tensor([request.kv.req_pool_idx for request in requests])
        eagle_prepare_for_decode(
            SimpleNamespace(
                reqs=requests, req_pool_indices=rows, seq_lens_cpu=rows, device="cpu", tree_cache=self.tree,
                req_to_token_pool=self.rows, token_to_kv_pool_allocator=self.allocator,
                maybe_evict_swa=lambda: None, hisparse_coordinator=None,
                sampling_info=SimpleNamespace(penalizer_orchestrator=SimpleNamespace(is_required=False)),
            )
        )  # fmt: skip

    def launch(self, requests: list[Any]) -> list[int]:
        """How many drafts each request's check will accept."""
        kept = []
        for request in requests:
            kept.append(accepted(request.number, request.checks, self.drafts, self.chance))
            request.checks += 1
        self.tracks = [request.kv.mamba_next_track_idx for request in requests]
        return kept

    def prefilled(self, requests: list[Any], decoding: list[Any]) -> None:
        """A step of prompts is over; ``decoding``: of ``requests``, those that decoded in it by one token."""
        tokens = [request.first_output + len(request.output_ids) for request in requests]
        batch = SimpleNamespace(
            reqs=requests, decoding_reqs=decoding or None, spec_algorithm=self.algorithm, return_logprob=False,
            return_hidden_states=False, prefill_stats=None,
        )  # fmt: skip
        self.over.process_batch_result_prefill(batch, self._result(torch.tensor(tokens)))

    def checked(self, requests: list[Any], kept: list[int], tracks: list[Any]) -> None:
        """A check is over, with as many drafts accepted as ``launch`` said."""
        width = self.drafts + 1
        tokens = [
            request.first_output + len(request.output_ids) + place
            for request in requests
            for place in range(width)
        ]
        result = self._result(torch.tensor(tokens))
        result.accept_lens = torch.tensor([1 + count for count in kept])
        result.speculative_output_stride = width
        batch = SimpleNamespace(
            reqs=requests, spec_algorithm=self.algorithm, return_logprob=False, batch_size=lambda: len(requests),
            mamba_track_mask_cpu=None, mamba_track_buffer_indices=tracks, req_to_token_pool=self.rows,
        )  # fmt: skip
        self.over.process_batch_result_decode(batch, result)

    def _result(self, tokens: torch.Tensor) -> Any:
        return SimpleNamespace(
            copy_done=None, routed_experts_output=None, indexer_topk_output=None, auxiliary_host_output=None,
            logits_output=None, next_token_ids=tokens, extend_input_len_per_req=None, cap_lens=None,
            extend_logprob_start_len_per_req=None, can_run_cuda_graph=False, block_accept_lens=None,
            num_non_draft_tokens_per_req=1, grammar_advanced=False, grammar_retained_tokens=None,
            get_num_generated_tokens=lambda size: 0,
        )  # fmt: skip


def _write_rows(
    rows: torch.Tensor, table: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor, places: torch.Tensor,
    count: int,
) -> None:  # fmt: skip
    at = 0
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        table[row, start:end] = places[at : at + end - start].to(table.dtype)
        at += end - start

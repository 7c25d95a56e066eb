"""The loop of SGLang's scheduler around its own radix cache, allocators, request and prefill adder, without a GPU.

Prompts first, decode when there are none (or with them, where chunks are mixed), retraction when no page is free; with
overlap every batch is decided while the one before it runs. Only in the environment of ``run.sh``.
"""

from __future__ import annotations

import itertools
import time
from array import array
from types import SimpleNamespace
from typing import Any

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
for schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    LIBRARY.define(schema)

from sglang.srt import runtime_context  # noqa: E402
from sglang.srt.managers import schedule_batch as sb  # noqa: E402
from sglang.srt.managers import schedule_policy as sp  # noqa: E402
from sglang.srt.managers.scheduler_components import new_token_ratio_tracker as nt  # noqa: E402
from sglang.srt.mem_cache import allocation, common  # noqa: E402
from sglang.srt.mem_cache.allocator.paged import PagedTokenToKVPoolAllocator  # noqa: E402
from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator  # noqa: E402
from sglang.srt.mem_cache.cache_init_params import CacheInitParams  # noqa: E402
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool  # noqa: E402
from sglang.srt.mem_cache.unified_cache.component_type import ComponentType  # noqa: E402
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache  # noqa: E402

from tests.engines import sglang_drafts, sglang_host, sglang_states  # noqa: E402

TICKS = itertools.count(1)
time.monotonic = lambda: float(next(TICKS))  # ages of nodes never tie


class Bag(SimpleNamespace):
    """Settings of an engine; what a case does not set is off."""

    def __getattr__(self, name: str) -> Any:
        return None


class Engine:
    """The scheduler's loop around the real classes."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.page = options["page_size"]
        self.tokens = options["max_total_tokens"]
        self.options = options
        self.buffered = not options.get(
            "no_buffer"
        )  # states beside that of each request to keep older ones in
        bag = Bag(
            schedule_policy=options["schedule_policy"], schedule_conservativeness=options["schedule_conservativeness"],
            retraction_policy="default", radix_eviction_policy=options["radix_eviction_policy"],
            disaggregation_mode="null", features=Bag(), page_size=self.page,
            mamba=Bag(**(sglang_states.settings(self.page, self.buffered) if options.get("state_slots") else {})),
            **sglang_drafts.settings(options["num_speculative_tokens"])
            if options.get("num_speculative_tokens") else {},
        )  # fmt: skip
        runtime_context._CONTEXT.__class__.config_bag = lambda self, name: bag
        kind = TokenToKVPoolAllocator if self.page == 1 else PagedTokenToKVPoolAllocator
        common_args = {"dtype": torch.bfloat16, "device": "cpu", "kvcache": None, "need_sort": False}
        if self.page == 1:
            self.allocator = kind(self.tokens, **common_args)
        else:
            self.allocator = kind(self.tokens, self.page, **common_args)
        states, context = options.get("state_slots", 0), self.tokens + 4096
        if states:
            self.rows = sglang_states.pool(options, context)
        else:
            self.rows = ReqToTokenPool(options["max_running_requests"], context, "cpu", False)
        kinds = (ComponentType.FULL, ComponentType.MAMBA) if states else (ComponentType.FULL,)
        self.tree = UnifiedRadixCache(
            CacheInitParams(
                disable=options["disable_radix_cache"], req_to_token_pool=self.rows,
                token_to_kv_pool_allocator=self.allocator, page_size=self.page,
                eviction_policy=options["radix_eviction_policy"], tree_components=kinds,
                eviction_policy_config=options.get("eviction_policy_config"),
                enable_mamba_extra_buffer=bool(states) and self.buffered,
                is_eagle=bool(options.get("num_speculative_tokens")),
            )
        )  # fmt: skip
        self.states: Any = None
        if states:
            self.states = sglang_states.Tracker(
                self.rows, self.tree, bool(options.get("overlap")), self.buffered
            )
        self.tracks: Any = None  # of the decode batch that was decided last
        self.clock = sglang_host.Clock()
        self.host: Any = None
        if options.get("host_tokens"):
            self.host = sglang_host.attach(self.tree, self.allocator, options, self.clock)
        self.policy = sp.SchedulePolicy(options["schedule_policy"], self.tree, False, False, False)
        self.ratio = nt.NewTokenRatioTracker.from_config()
        self.waiting: list[Any] = []
        self.running: list[Any] = []
        self.last: list[Any] = []
        self.last_chunked: Any = None
        self.chunked: Any = None
        self.full = False
        self.retracted = 0
        self.processed = 0
        self.overlap = bool(options.get("overlap"))
        self.in_flight: set[Any] = set()  # of the batch whose result is not processed yet
        self.checks: Any = None
        if options.get("num_speculative_tokens"):
            self.checks = sglang_drafts.Checks(self, options)
        self.kept: list[int] = []  # drafts that the check decided last will accept

    def add(self, request: Any) -> None:
        request.arrival_processed_tokens = self.processed
        self.waiting.append(request)

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.running or self.last or self.chunked)

    def step(self) -> tuple[str, list[tuple[Any, int]]]:
        if self.host:
            self.tree.check_hicache_events()
            self.host.loaded_s = 0.0
        self._merge()
        batch = self._prefill()
        if batch:
            return "extend", batch
        if self.running:
            decoding = self._decode()
            if self.checks:
                self.kept = self.checks.launch(decoding)
            new = 1 + self.checks.drafts if self.checks else 1
            return "decode", [(request, new) for request in decoding]
        return "idle", []

    def _without_finishing(self) -> bool:
        """Take those out whose last token the batch in flight brings; whether there were any."""
        going_on = [
            r for r in self.running if not (r in self.in_flight and r.next_output_finishes_by_length())
        ]
        fewer = len(going_on) < len(self.running)
        self.running = going_on
        if fewer:
            self.full = False
        return fewer

    def _merge(self) -> None:
        excluded = set()
        if self.chunked is not None:
            excluded.add(self.chunked)
            common.checkpoint_kv_cache(self.chunked, self.tree)
        if self.last:
            if self.last_chunked is not None:
                excluded.add(self.last_chunked)
            kept = [r for r in self.last if r not in excluded and not r.finished()]
            if len(kept) < len(self.last):
                self.full = False
            if kept:
                if not self.running:
                    self.full = False
                self.running = self.running + kept
            self.last = []
        alive = [r for r in self.running if not r.finished()]
        if len(alive) < len(self.running):
            self.full = False
        self.running = alive

    def _prefill(self) -> list[tuple[Any, int]]:
        options = self.options
        places = options["max_running_requests"]
        if not self.running:
            self.full = False
        if (self.full or not self.waiting) and self.chunked is None:
            return []
        if len(self.running) >= places and self.chunked is None:
            self.full = True
            return []
        self.policy.calc_priority(self.waiting, None, processed_tokens=self.processed)
        adder = sp.PrefillAdder(
            self.page, self.tree, self.allocator, SimpleNamespace(reqs=self.running), self.ratio.current,
            options["max_prefill_tokens"], options["chunked_prefill_size"],
            len(self.running) if options.get("mixed") else 0, 0,
        )  # fmt: skip
        if self.chunked is not None:
            self.chunked.init_next_round_input()
            self.chunked = adder.add_chunked_req(self.chunked)
        if self.states:
            self.rows.mamba_allocator.alloc_group_begin(len(self.waiting))
        for request in self.waiting:
            if adder.budget_state() == sp.AddReqResult.OTHER:
                break
            held = sum(r.kv.holds_kv for r in adder.can_run_list)
            free = min(places - len(self.running), self.rows.available_size() + held)
            if len(adder.can_run_list) >= free:
                self.full = True
            if self.full:
                break
            request.init_next_round_input(self.tree)
            answer = adder.add_one_req(
                request, has_chunked_req=self.chunked is not None, truncation_align_size=None
            )
            if answer != sp.AddReqResult.CONTINUE:
                if answer == sp.AddReqResult.NO_TOKEN:
                    self.full = bool(adder.can_run_list) or bool(self.running)
                if self.states and request not in adder.can_run_list[-1:]:
                    self.states.take_back(request)
                break
        if self.states:
            self.rows.mamba_allocator.alloc_group_end()
        taken = adder.can_run_list
        if not taken:
            return []
        self.waiting = [r for r in self.waiting if r not in set(taken)]
        if adder.new_chunked_req is not None:
            self.chunked = adder.new_chunked_req
        if self.checks and self.chunked is not None:
            self.chunked.inflight_middle_chunks += 1
        if self.host:
            self.tree.ready_to_load_host_cache()
        self._allocate(taken)
        batch = [(r, r.extend_len) for r in taken]
        self.decoding = []
        if options.get("mixed") and self.running:
            self._without_finishing()
            if self.running and self._fits(self.running):
                self.decoding = self._allocate_decode()
                for request in self.decoding:
                    request.refresh_fill_ids()
                    request.extend_end = request.kv.kv_committed_len
                batch += [(request, 1) for request in self.decoding]
                self.running = []
        self.last, self.last_chunked = [request for request, _ in batch], self.chunked
        self.processed += sum(new for _, new in batch)
        return batch

    def _allocate(self, requests: list[Any]) -> None:
        """As ``alloc_for_extend`` does it, row by row."""
        for request in requests:
            request.is_retracted = False
        new = sum(r.extend_len for r in requests)
        prefixes = [
            torch.empty(0, dtype=torch.int64) if r.prefix_len == 0 else self._prefix(r) for r in requests
        ]
        allocation.alloc_req_slots(self.rows, requests, self.tree)
        if self.page == 1:
            common.evict_from_tree_cache(self.tree, new)
            places = self.allocator.alloc(new)
        else:
            common.evict_from_tree_cache(self.tree, new + len(requests) * self.page)
            starts = torch.tensor([r.prefix_len for r in requests])
            ends = torch.tensor([r.extend_end for r in requests])
            last = torch.cat([p[-1:] if len(p) else torch.full((1,), -1) for p in prefixes])
            places = self.allocator.alloc_extend(starts, starts, ends, ends, last, new)
        assert places is not None, "no room for what was admitted"
        at = 0
        for request, prefix in zip(requests, prefixes, strict=True):
            row = self.rows.req_to_token[request.kv.req_pool_idx]
            row[: request.prefix_len] = prefix.to(row.dtype)
            row[request.prefix_len : request.extend_end] = places[at : at + request.extend_len].to(row.dtype)
            at += request.extend_len
            request.kv.kv_allocated_len = request.kv.kv_committed_len = request.extend_end
            if self.states:
                self.states.extend(request)

    def _prefix(self, request: Any) -> torch.Tensor:
        if request.kv.holds_kv:
            return self.rows.req_to_token[request.kv.req_pool_idx, : request.prefix_len].to(torch.int64)
        return self.tree.prefix_device_indices(request)

    def _need(self, requests: list[Any]) -> int:
        if self.checks:
            return self.checks.need(requests)
        return sum(self.page for r in requests if r.kv.kv_committed_len % self.page == 0)

    def _fits(self, requests: list[Any]) -> bool:
        return self.allocator.check_decode_capacity(
            num_tokens=self._need(requests), tree_cache=self.tree, requests=requests
        )

    def _decode(self) -> list[Any]:
        finishing = self._without_finishing()
        before = len(self.running)
        if not self.running:
            return []
        fits = self._fits(self.running)
        if not fits and finishing:
            return []
        if not fits:
            order = sb.ScheduleBatch._get_decode_retraction_order(self.running)
            gone, first = [], True
            while first or not self._fits([self.running[i] for i in order]):
                if len(order) == 1:
                    break
                first = False
                request = self.running[order.pop()]
                sb.release_req(
                    req=request, remaing_req_count=len(order), req_to_token_pool=self.rows,
                    token_to_kv_pool_allocator=self.allocator, tree_cache=self.tree, hisparse_coordinator=None,
                )  # fmt: skip
                gone.append(request)
            if len(order) < before:
                self.running = [self.running[i] for i in order]
            self.ratio.current = nt.NewTokenRatioTracker.estimate_new_token_ratio_after_retract(self.running)
            self.retracted += len(gone)
            for request in gone:
                self.add(request)
        else:
            self.ratio.decay_step()
        if len(self.running) < before:
            self.full = False
        return self._allocate_decode()

    def _allocate_decode(self) -> list[Any]:
        requests = self.running
        if self.checks:
            self.checks.take(requests)
            return requests
        common.evict_from_tree_cache(self.tree, len(requests) * self.page)
        ends = torch.tensor([r.kv.kv_committed_len + 1 for r in requests])
        if self.page == 1:
            places = self.allocator.alloc(len(requests))
        else:
            last = torch.stack(
                [self.rows.req_to_token[r.kv.req_pool_idx, r.kv.kv_committed_len - 1] for r in requests]
            ).to(torch.int64)
            places = self.allocator.alloc_decode(ends, ends, last)
        assert places is not None
        for request, place in zip(requests, places.tolist(), strict=True):
            self.rows.req_to_token[request.kv.req_pool_idx, request.kv.kv_committed_len] = place
            request.kv.kv_allocated_len += 1
            request.kv.kv_committed_len += 1
        if self.states:
            self.tracks = self.states.decode(requests)
        return requests

    def complete(
        self, kind: str, batch: list[tuple[Any, int]], chunked: Any, decoding: list[Any], tracks: Any
    ) -> list[Any]:
        """The requests that are done; ``chunked``: the one whose prompt is not complete with this batch."""
        if self.checks:
            return self._complete_checks(kind, [request for request, _ in batch], decoding, tracks)
        done = []
        for place, (request, _) in enumerate(batch):
            if (kind == "extend" and request is chunked) or request.finished() or request.is_retracted:
                continue
            request.output_ids.append(request.first_output + len(request.output_ids))
            if len(request.output_ids) >= request.sampling_params.max_new_tokens:
                request.finished_reason = sb.FINISH_LENGTH(length=len(request.output_ids))
                if tracks is None:
                    common.release_kv_cache(request, self.tree, checkpoint=True)
                done.append(request)
            if tracks is not None:
                self.states.finish(request, tracks, place)
            elif request.finished():
                pass
            elif kind == "extend" and request not in decoding:
                common.checkpoint_kv_cache(request, self.tree)
        return done

    def _complete_checks(
        self, kind: str, batch: list[Any], decoding: list[Any], kept: list[int]
    ) -> list[Any]:
        before = [request for request in batch if request.finished()]
        if kind == "extend":
            self.checks.prefilled(batch, decoding)
        else:
            self.checks.checked(batch, *kept)
        return [request for request in batch if request.finished() and request not in before]


def tokens(keys: list[int], key_tokens: int, count: int) -> array:
    return array("q", [key * key_tokens + place for key in keys for place in range(key_tokens)][:count])

"""SGLang's prefill and decode servers in virtual time: its own queues and mixins, without what belongs to a cluster.

The loops around them are those of ``event_loop_normal_disagg_*`` and ``event_loop_overlap_disagg_*``: they look at
their queues before every step, with overlap while the step before it runs; an idle one when something happens.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from tests.engines import sglang_engine as single

OPERATORS = single.LIBRARY  # with which SGLang can be imported without a GPU

from sglang.srt import runtime_context  # noqa: E402
from sglang.srt.disaggregation.decode import (  # noqa: E402
    DecodeReqToTokenPool,
    DecodeTransferQueue,
    SchedulerDisaggregationDecodeMixin,
)
from sglang.srt.disaggregation.prefill import SchedulerDisaggregationPrefillMixin  # noqa: E402
from sglang.srt.disaggregation.utils import MetadataBuffers, ReqToMetadataIdxAllocator  # noqa: E402
from sglang.srt.managers import schedule_batch as sb  # noqa: E402
from sglang.srt.mem_cache import common  # noqa: E402

from tests.engines import sglang_transfer as transfer  # noqa: E402


class Quiet:
    """Says nothing: metrics, output, streams."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Cache:
    """The tensors of a cache, as far as retraction asks for them."""

    cpu_copy_carries_mamba = True

    def get_cpu_copy(self, indices: Any, **_: Any) -> int:
        return len(indices)

    def load_cpu_copy(self, saved: int, indices: Any, **_: Any) -> None:
        assert saved == len(indices)


class Server(single.Engine):
    """What both have: names that SGLang's mixins look for, and a loop that waits when it has nothing to do."""

    mode = ""
    enable_staging = enable_hisparse = enable_decode_hicache = enable_lora = enable_priority_scheduling = (
        False
    )
    kv_shard_widening = 1
    kv_checksum_computer = scheduler_stage_metrics = disagg_decode_prealloc_queue = None
    random_seed = 0
    last_batch = None  # never one that came prebuilt: those join at once
    attn_cp_cpu_group = attn_tp_cpu_group = None

    def __init__(self, options: dict[str, Any], case: dict[str, Any], requests: list[Any], wire: Any) -> None:
        super().__init__(options)
        self.wire, self.case, self.requests = wire, case, requests
        self.bag = single.Bag(
            **{
                **runtime_context._CONTEXT.config_bag("").__dict__,
                "disaggregation_mode": self.mode,
                "disaggregation_decode_allocation_policy": "early",
                "disaggregation_decode_host_receive_threshold": 1.0,
                "disaggregation_decode_retraction_backup": "cpu_tensor",
                "disaggregation_decode_polling_interval": 1,
                "optimistic_prefill_attempts": 0,
                "disable_radix_cache": options["disable_radix_cache"],
            }
        )
        self.enter()
        cache = self.allocator._kvcache = Cache()
        self.allocator.get_cpu_copy, self.allocator.load_cpu_copy = cache.get_cpu_copy, cache.load_cpu_copy
        self.tree_cache, self.token_to_kv_pool_allocator = self.tree, self.allocator
        self.enable_overlap = self.overlap
        model = SimpleNamespace(effective_logical_max_total_num_tokens=self.tokens)
        self.tp_worker = SimpleNamespace(is_hybrid_swa=False, model_runner=model)
        self.spec_algorithm = SimpleNamespace(is_none=lambda: True, is_eagle=lambda: False)
        self.schedule_stream = self.metrics_reporter = self.output_streamer = Quiet()
        self.batch_result_processor = Quiet()
        self.metrics_reporter = SimpleNamespace(enable_metrics=False, report_prefill_stats=lambda **_: None)
        self.forward_stream = SimpleNamespace(free_s=0.0)
        self.place = 0
        self.results: list[Any] = []
        self.previous: Any = None
        self.steps: list[Any] = []
        self.active = True

    waiting_queue = property(
        lambda self: self.waiting, lambda self, queue: setattr(self, "waiting", queue)
    )  # fmt: skip
    running_batch = property(lambda self: SimpleNamespace(reqs=self.running, batch_is_full=False))

    def buffers(self, count: int) -> None:
        self.req_to_metadata_buffer_idx_allocator = ReqToMetadataIdxAllocator(count)
        self.disagg_metadata_buffers = MetadataBuffers(
            count, hidden_size=16, hidden_states_dtype=torch.float32, max_sampling_mask_tokens=1
        )

    @property
    def due_s(self) -> float:
        """When it looks at its queues again."""
        if self.active:
            return self.clock.now
        rows = self.case["requests"]
        arrives = [rows[self.place][0]] if self.place < len(rows) else []
        return min((s for s in (*arrives, *self.events()) if s > self.clock.now), default=transfer.NEVER)

    def enter(self) -> None:
        """Its settings are those that SGLang finds."""
        runtime_context._CONTEXT.__class__.config_bag = lambda _, name: self.bag

    def turn(self) -> None:
        """One pass of the event loop."""
        self.enter()
        self.clock.now = self.due_s
        before = self.clock.now, self.state()
        rows = self.case["requests"]
        while self.place < len(rows) and rows[self.place][0] <= self.clock.now:
            self.take(self.requests[self.place])
            self.place += 1
        batch = self.plan()
        if batch:
            self.steps.append(sorted((request.number, new) for request, new in batch))
            began = max(self.clock.now, self.forward_stream.free_s)
            self.launched(batch, began)
            seconds = self.case["fixed_s"] + self.case["token_s"] * sum(new for _, new in batch)
            self.forward_stream.free_s = began + seconds
            self.results.append((batch, self.forward_stream.free_s, self.kept))
        if self.results and (self.previous or not self.overlap):
            finished, self.clock.now, kept = self.results.pop(0)
            self.complete_batch(finished, kept)
        self.passed()
        self.previous = batch
        self.active = bool(batch or self.results) or (self.clock.now, self.state()) != before

    def state(self) -> Any:
        pools = self.allocator, self.rows
        return (*(pool.available_size() for pool in pools), len(self.waiting), len(self.running))


class Prompts(SchedulerDisaggregationPrefillMixin, Server):
    """A prefill server."""

    mode = "prefill"

    def __init__(self, options: dict[str, Any], case: dict[str, Any], requests: list[Any], wire: Any) -> None:
        super().__init__(options, case, requests, wire)
        self.req_to_token_pool = self.rows
        self.buffers(2 * options["max_running_requests"])
        self.disagg_prefill_inflight_queue: list[Any] = []
        self.disagg_prefill_pending_chunk_rids: set[str] = set()
        self.disagg_prefill_bootstrap_queue = transfer.Bootstrap(
            None, None, self.req_to_metadata_buffer_idx_allocator, self.disagg_metadata_buffers, 0, 1, self.tokens,
            self, None, None,
        )  # fmt: skip
        self.started = [-1.0] * len(requests)

    chunked_req = property(lambda self: self.chunked, lambda self, one: setattr(self, "chunked", one))
    processed_tokens_counter = property(lambda self: self.processed)

    def events(self) -> list[float]:
        rooms = [self.wire.room(one.bootstrap_room) for one in self.disagg_prefill_bootstrap_queue.queue]
        going = [self.wire.room(one.bootstrap_room) for one in self.disagg_prefill_inflight_queue]
        return [room.asked_s for room in rooms] + [room.done_s for room in going]

    def take(self, request: Any) -> None:
        self.disagg_prefill_bootstrap_queue.add(request, 1)

    def plan(self) -> list[tuple[Any, int]]:
        self.waiting.extend(self.disagg_prefill_bootstrap_queue.pop_bootstrapped())
        self.full = False
        self.resolve_waiting_queue_bootstrap()
        self.process_prefill_chunk(last_batch=None, running_batch=self.running_batch)
        batch = self._prefill()
        if self.chunked is not None:
            self.chunked.inflight_middle_chunks += 1
        return batch

    def launched(self, batch: list[tuple[Any, int]], began: float) -> None:
        for request, _ in batch:
            if self.started[request.number] < 0:
                self.started[request.number] = began
            self.maybe_send_cached_prefix_chunk(request)

    def complete_batch(self, batch: list[tuple[Any, int]], kept: list[int]) -> None:
        tokens = torch.tensor([request.first_output for request, _ in batch])
        self.process_batch_result_disagg_prefill(
            single.Bag(reqs=[request for request, _ in batch]),
            single.Bag(next_token_ids=tokens),
        )

    def passed(self) -> None:
        self.process_disagg_prefill_inflight_queue()

    def maybe_send_health_check_signal(self) -> None:
        pass


class Outputs(SchedulerDisaggregationDecodeMixin, Server):
    """A decode server."""

    mode = "decode"

    def __init__(self, options: dict[str, Any], case: dict[str, Any], requests: list[Any], wire: Any) -> None:
        super().__init__({**options, "disable_radix_cache": True}, case, requests, wire)
        places = options["max_running_requests"]
        self.rows = self.req_to_token_pool = self.tree.req_to_token_pool = DecodeReqToTokenPool(
            places, self.tokens + 4096, "cpu", False, options["extra_slots"]
        )
        self.places = places
        if self.checks:
            self.checks.rows, self.spec_algorithm = self.rows, self.checks.algorithm
        self.buffers(2 * places)
        wire.buffers = self.disagg_metadata_buffers
        self.disagg_decode_transfer_queue = DecodeTransferQueue(
            self.req_to_metadata_buffer_idx_allocator, self.disagg_metadata_buffers, self, self.tree
        )
        self.disagg_decode_prealloc_queue = transfer.Prealloc(
            self.rows, self.allocator, None, self.req_to_metadata_buffer_idx_allocator,
            self.disagg_metadata_buffers, self, self.disagg_decode_transfer_queue, self.tree, 0, 1, self.tokens,
            options["num_reserved_decode_tokens"], None,
        )  # fmt: skip
        count = len(requests)
        self.decoding, self.first, self.last_s = ([-1.0] * count for _ in range(3))

    def events(self) -> list[float]:
        return [one.kv_receiver.room.done_s for one in self.disagg_decode_transfer_queue.queue]

    def take(self, request: Any) -> None:
        self.disagg_decode_prealloc_queue.add(request)

    def plan(self) -> list[tuple[Any, int]]:
        self.process_decode_queue()
        self._prebuilt()
        self.running = [request for request in self.running if not request.finished()]
        decoding = self._decode_all()
        if self.checks:
            self.kept = self.checks.launch(decoding)
        return [(request, 1 + self.checks.drafts if self.checks else 1) for request in decoding]

    def _prebuilt(self) -> None:
        """Those whose caches came join the batch while it has places."""
        joining = self.waiting[: max(0, self.places - len(self.running))]
        self.waiting = self.waiting[len(joining) :]
        for request in joining:
            request.init_next_round_input(self.tree)
            request.extend_end = request.kv.kv_committed_len
            request.is_retracted = False
            common.checkpoint_kv_cache(request, self.tree)
            request.update_finish_state()
            if self.first[request.number] < 0:
                self.first[request.number] = self.clock.now
            if request.finished():
                common.release_kv_cache(request, self.tree, checkpoint=True)
                self.last_s[request.number] = self.clock.now
        self.running = self.running + [request for request in joining if not request.finished()]

    def _decode_all(self) -> list[Any]:
        if self.running and not self._fits(self.running):
            order = sb.ScheduleBatch._get_decode_retraction_order(self.running)
            first = True
            while first or not self._fits([self.running[i] for i in order]):
                assert len(order) > 1, "the last request does not fit"
                first = False
                request = self.running[order.pop()]
                sb.release_req(
                    req=request, remaing_req_count=len(order), req_to_token_pool=self.rows,
                    token_to_kv_pool_allocator=self.allocator, tree_cache=self.tree, hisparse_coordinator=None,
                )  # fmt: skip
                self.retracted += 1
                self.disagg_decode_prealloc_queue.add(request, is_retracted=True)
            self.running = [self.running[i] for i in order]
        return self._allocate_decode() if self.running else []

    def launched(self, batch: list[tuple[Any, int]], began: float) -> None:
        for request, _ in batch:
            if self.decoding[request.number] < 0:
                self.decoding[request.number] = began

    def complete_batch(self, batch: list[tuple[Any, int]], kept: list[int]) -> None:
        going_on = [request for request, _ in batch if not request.finished() and not request.is_retracted]
        if self.checks:
            self.checks.checked([request for request, _ in batch], kept, [-1] * len(batch))
        for request in going_on:
            if not self.checks:
                request.output_ids.append(request.first_output + len(request.output_ids))
                request.update_finish_state(1)
                if request.finished():
                    common.release_kv_cache(request, self.tree, checkpoint=True)
            if request.finished():
                self.last_s[request.number] = self.clock.now

    def passed(self) -> None:
        pass

    def state(self) -> Any:
        queues = self.disagg_decode_prealloc_queue, self.disagg_decode_transfer_queue
        return (*super().state(), *(len(queue.queue) for queue in queues))

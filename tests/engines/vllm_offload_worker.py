"""The worker's half of vLLM's OffloadingConnector in virtual time: when transfers begin, end and are reported.

As model runner V2 drives it on a card: stores of a step are submitted when the next one is launched, loads after the
forward pass of their step; each transfer waits for what has been launched before it and for the transfer before it in
its direction. What has ended is looked up at the launch of a step and told with that step's output.
"""

from __future__ import annotations

from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingWorkerMetadata
from vllm.v1.outputs import KVConnectorOutput


class VirtualWorker:
    """``block_s``: seconds that one block takes in either direction."""

    def __init__(self, scheduler: Any, block_s: float) -> None:
        self.block_s = block_s
        self.read_free = self.write_free = 0.0
        self.unsubmitted: list[tuple[int, int]] = []  # job, blocks
        self.running: dict[int, tuple[float, str | None]] = {}  # job: end, request that loads
        self.events: list[list[Any]] = []
        self.counts = {"loaded": 0, "stored": 0, "evicted": 0, "refused": 0, "flushes": 0}
        self._watch(scheduler.connector)

    def _watch(self, connector: Any) -> None:
        """Count evictions, and give finished requests an order (vLLM keeps them in a set)."""
        scheduler = connector.connector_scheduler
        build, prepare = scheduler.build_connector_meta, scheduler.manager.prepare_store

        def in_order(made: Any) -> Any:
            made.finished_req_ids = sorted(made.finished_req_ids, key=int)
            answer = build(made)
            made.finished_req_ids = set(made.finished_req_ids)
            return answer

        def counted(keys: Any, context: Any) -> Any:
            answer = prepare(keys, context)
            if answer is None:
                self.counts["refused"] += 1
            else:
                self.counts["evicted"] += len(answer.evicted_keys)
            return answer

        scheduler.build_connector_meta = in_order
        scheduler.manager.prepare_store = counted

    def launch(
        self, made: Any, now: float, free_at: float, seconds: float
    ) -> tuple[float, KVConnectorOutput]:
        """A step decided at ``now`` behind work that ends at ``free_at``: when it ends, and what it reports."""
        meta = made.kv_connector_metadata
        for kind, jobs in (("load", meta.load_jobs), ("store", meta.store_jobs)):
            for entry in jobs.values():
                blocks = len((entry.dst_spec if kind == "load" else entry.src_spec).block_ids)
                self.events.append([kind, int(entry.req_id), blocks])
                self.counts["loaded" if kind == "load" else "stored"] += blocks
        flush = set(meta.jobs_to_flush or ())
        for job in sorted(flush):
            if job in meta.store_jobs:
                self._put_off(job, meta.store_jobs.pop(job))
        for job, blocks in self.unsubmitted:
            begin = max(self.write_free, now, free_at)
            self.write_free = begin + blocks * self.block_s
            self.running[job] = (self.write_free, None)
        self.unsubmitted.clear()
        waited = [self.running[job][0] for job in flush if job in self.running]
        self.counts["flushes"] += any(end > now for end in waited)
        now = max([now, *waited])
        free_at = max(now, free_at) + seconds
        for job, entry in meta.load_jobs.items():
            begin = max(self.read_free, free_at)
            blocks = len(entry.dst_spec.block_ids)
            self.read_free = begin + blocks * self.block_s
            self.running[job] = (self.read_free, entry.req_id)
        for job, entry in meta.store_jobs.items():
            self._put_off(job, entry)
        over = {job: request for job, (end, request) in self.running.items() if end <= now}
        for job in over:
            del self.running[job]
        loaded = {request for request in over.values() if request is not None}
        told = KVConnectorOutput(
            finished_recving=loaded or None,
            kv_connector_worker_meta=OffloadingWorkerMetadata(dict.fromkeys(over, 1)) if over else None,
        )
        return free_at, told

    def _put_off(self, job: int, entry: Any) -> None:
        self.unsubmitted.append((job, len(entry.src_spec.block_ids)))

    @property
    def next_s(self) -> float:
        """When the next transfer ends; 0: one waits to be submitted, infinity: there is none."""
        if self.unsubmitted:
            return 0.0
        return min((end for end, _ in self.running.values()), default=float("inf"))

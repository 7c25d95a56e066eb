"""Host memory behind SGLang's own tree in virtual time: a pool of places, and transfers that take their time.

The tree decides what is written, dropped and loaded (``HiCache``); this plays its controller. Transfers of a direction
follow one another; what was queued is submitted when the engine says so, as one transfer. A write that the engine waits
for moves its clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt.mem_cache.unified_cache.component_type import ComponentType

LOAD_BACK_THRESHOLD = 10
"""What ``init_hicache`` sets, with one hit for ``write_through`` and two for ``write_through_selective``."""


@dataclass
class Clock:
    """The engine's."""

    now: float = 0.0


class Event:
    """The end of a transfer."""

    def __init__(self, clock: Clock, ends: float) -> None:
        self.clock, self.ends = clock, ends

    def query(self) -> bool:
        return self.ends <= self.clock.now

    def synchronize(self) -> None:
        self.clock.now = max(self.clock.now, self.ends)


class Places:
    """``size`` tokens of host memory."""

    def __init__(self, size: int) -> None:
        self.left = list(range(size))
        domain = SimpleNamespace(shared_allocation_domain=None)
        self.anchor_entry = SimpleNamespace(host_pool=domain, host_evict_fn=None)
        self.dropped = 0

    def available_size(self) -> int:
        return len(self.left)

    def free(self, indices: torch.Tensor, pool: Any = None) -> None:
        self.left += indices.tolist()
        self.dropped += len(indices)


class Controller:
    """What the tree asks of its cache controller."""

    pp_prefetch_command_group = None

    def __init__(self, allocator: Any, options: dict[str, Any], clock: Clock) -> None:
        self.allocator, self.clock = allocator, clock
        self.token_s = options["host_token_s"]
        self.write_policy = options["write_policy"]
        self.mem_pool_host = Places(options["host_tokens"])
        self.ack_write_queue: list[Any] = []
        self.ack_load_queue: list[Any] = []
        self._writes: list[tuple[int, int]] = []
        self._loads: list[tuple[int, int]] = []
        self._write_free = self._read_free = 0.0
        self.stored = self.loaded = 0
        self.loaded_s = 0.0

    def write(
        self, device_indices: torch.Tensor, node_id: int = -1, extra_pools: Any = None, flush: bool = True
    ) -> torch.Tensor | None:
        count, left = len(device_indices), self.mem_pool_host.left
        if count > len(left):
            return None
        self.mem_pool_host.left = left[count:]
        self._writes.append((node_id, count))
        self.stored += count
        return torch.tensor(left[:count], dtype=torch.int64)

    def start_writing(self) -> None:
        if self._writes:
            begin = max(self._write_free, self.clock.now)
            self._write_free = begin + self.token_s * sum(count for _, count in self._writes)
            self.ack_write_queue.append(self._ack(self._writes, self._write_free))
            self._writes = []

    def load(self, host_indices: torch.Tensor, node_id: int, extra_pools: Any = None) -> torch.Tensor | None:
        indices: torch.Tensor | None = self.allocator.alloc(len(host_indices))
        if indices is not None:
            self._loads.append((node_id, len(host_indices)))
            self.loaded += len(host_indices)
        return indices

    def start_loading(self) -> int:
        self.loaded_s = 0.0
        if not self._loads:
            return -1
        begin = max(self._read_free, self.clock.now)
        self.loaded_s = self._read_free = begin + self.token_s * sum(count for _, count in self._loads)
        self.ack_load_queue.append(self._ack(self._loads, self._read_free))
        self._loads = []
        return 0

    def _ack(self, nodes: list[tuple[int, int]], ends: float) -> SimpleNamespace:
        return SimpleNamespace(node_ids=[node for node, _ in nodes], finish_event=Event(self.clock, ends))


def attach(tree: Any, allocator: Any, options: dict[str, Any], clock: Clock) -> Controller:
    """As ``init_hicache`` leaves the tree, with our controller."""
    controller = Controller(allocator, options, clock)
    tree.cache_controller = controller
    tree.host_pool_group = controller.mem_pool_host
    tree.components[ComponentType.FULL]._full_kv_pool_host = controller.mem_pool_host
    tree.tree_core.set_hicache_enabled()
    tree.write_through_threshold = 1 if controller.write_policy == "write_through" else 2
    tree.is_write_back = controller.write_policy == "write_back"
    tree.load_back_threshold = LOAD_BACK_THRESHOLD
    return controller

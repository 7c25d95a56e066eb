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
from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from sglang.srt.mem_cache.hicache_storage import PoolName
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
        self.states: list[int] = []

    def available_size(self) -> int:
        return len(self.left)

    def get_pool(self, pool: Any) -> SimpleNamespace:
        """The places for states."""
        assert pool is PoolName.MAMBA
        return SimpleNamespace(available_size=lambda: len(self.states))

    def free(self, indices: torch.Tensor, pool: Any = None) -> None:
        if pool is PoolName.MAMBA:
            self.states += indices.tolist()
            return
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
        self.tree: Any = None
        self.state_tokens = options.get("host_state_tokens", 0)
        self.mem_pool_host.states = list(range(options.get("host_states", 0)))
        self.loaded_s = 0.0

    def write(
        self, device_indices: torch.Tensor, node_id: int = -1, extra_pools: Any = None, flush: bool = True
    ) -> torch.Tensor | None:
        count, left = len(device_indices), self.mem_pool_host.left
        if count > len(left):
            return None
        states = self.mem_pool_host.states
        for transfer in extra_pools or ():
            if not states:
                self.tree.evict_host(1, ComponentType.MAMBA)
            if not states:
                return None
            transfer.host_indices = torch.tensor([states.pop(0)], dtype=torch.int64)
        left = self.mem_pool_host.left
        self.mem_pool_host.left = left[count:]
        self._writes.append((node_id, count + self.state_tokens * len(extra_pools or ())))
        self.stored += count
        return torch.tensor(left[:count], dtype=torch.int64)

    def start_writing(self) -> None:
        if self._writes:
            begin = max(self._write_free, self.clock.now)
            self._write_free = begin + self.token_s * sum(count for _, count in self._writes)
            self.ack_write_queue.append(self._ack(self._writes, self._write_free))
            self._writes = []

    def load(self, host_indices: torch.Tensor, node_id: int, extra_pools: Any = None) -> torch.Tensor | None:
        indices: torch.Tensor | None = torch.empty(0, dtype=torch.int64)
        if len(host_indices):
            indices = self.allocator.alloc(len(host_indices))
        if indices is None:
            return None
        for transfer in extra_pools or ():
            if transfer.device_indices is None:
                transfer.device_indices = self.state_place()
                if transfer.device_indices is None:
                    self.allocator.free(indices)
                    return None
        self._loads.append((node_id, len(host_indices) + self.state_tokens * len(extra_pools or ())))
        self.loaded += len(host_indices)
        return indices

    def state_place(self) -> torch.Tensor | None:
        """A place for a state on the card."""
        free = self.tree.req_to_token_pool.mamba_allocator
        place = free.alloc(1)
        if place is None:
            self.tree.evict_for_alloc(EvictParams(num_tokens=0, mamba_num=1))
            place = free.alloc(1)
        found: torch.Tensor | None = place
        return found

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
    controller.tree = tree
    if options.get("host_states"):
        tree.components[ComponentType.MAMBA]._mamba_pool_host = controller.mem_pool_host
    tree.cache_controller = controller
    tree.host_pool_group = controller.mem_pool_host
    tree.components[ComponentType.FULL]._full_kv_pool_host = controller.mem_pool_host
    tree.tree_core.set_hicache_enabled()
    tree.write_through_threshold = 1 if controller.write_policy == "write_through" else 2
    tree.is_write_back = controller.write_policy == "write_back"
    tree.load_back_threshold = LOAD_BACK_THRESHOLD
    return controller

"""``torch.musa``: the device module that PyTorch and scripts ask about the card.

Its surface is that of ``torch_musa`` (and so of ``torch.cuda``): devices, streams, memory, random numbers,
autocast. ``cuda_names`` redirects ``torch.cuda`` to it. Answers come from the chip's data sheet.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from windtunnel.capture import memory_stats as memory
from windtunnel.capture import streams
from windtunnel.capture.backend import BACKEND, DEVICE
from windtunnel.capture.state import State
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program import marks

_TORCH = os.path.dirname(torch.__file__) + os.sep


@dataclass(frozen=True)
class DeviceProperties:
    """What ``get_device_properties`` answers."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    regs_per_multiprocessor: int
    max_threads_per_multi_processor: int
    shared_memory_per_block: int
    shared_memory_per_block_optin: int
    shared_memory_per_multiprocessor: int
    L2_cache_size: int
    clock_rate: int  # kHz
    gcnArchName: str = ""  # noqa: N815 - PyTorch's name
    is_integrated: int = 0
    is_multi_gpu_board: int = 0
    uuid: str = "00000000-0000-0000-0000-000000000000"
    pci_bus_id: int = 0
    pci_device_id: int = 0
    pci_domain_id: int = 0


def _state() -> State:
    return VirtualTensor.state


class CardModule(types.ModuleType):
    """The backend module. Device arguments are accepted everywhere; there is one card per process."""

    Stream = streams.Stream
    Event = streams.Event
    ExternalStream = streams.Stream
    default_generators = (torch.default_generator,) * 64  # one for each index that a script may use

    # ---- devices -----------------------------------------------------------

    @staticmethod
    def is_available() -> bool:
        return True

    is_initialized = is_built = _is_compiled = is_available

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def device_count() -> int:
        return _device.count

    @staticmethod
    def current_device() -> int:
        # tensors are on device 0 whatever the rank's number in its node: PyTorch's own code compares the two
        return 0 if sys._getframe(1).f_code.co_filename.startswith(_TORCH) else _device.index

    @staticmethod
    def set_device(device: Any) -> None:
        _device.index = _index(device)

    @staticmethod
    def _exchange_device(device: int) -> int:
        previous, _device.index = _device.index, _device.index if device < 0 else device
        return previous

    _maybe_exchange_device = _exchange_device

    @staticmethod
    def init() -> None:
        return None

    _lazy_init = init

    @staticmethod
    def _lazy_call(function: Any, **_: Any) -> None:
        function()

    @staticmethod
    @contextlib.contextmanager
    def device(device: Any) -> Iterator[None]:
        previous = _device.index
        if device is not None and not (isinstance(device, int) and device < 0):
            _device.index = _index(device)
        try:
            yield
        finally:
            _device.index = previous

    @staticmethod
    @contextlib.contextmanager
    def device_of(tensor: Any) -> Iterator[None]:
        yield

    @staticmethod
    def get_device_name(device: Any = None) -> str:
        return _state().chip.device_name

    @staticmethod
    def get_device_capability(device: Any = None) -> tuple[int, int]:
        return _state().chip.compute_capability

    @staticmethod
    def get_device_properties(device: Any = None) -> DeviceProperties:
        chip = _state().chip
        major, minor = chip.compute_capability
        shared = int(chip.shared_memory_bytes.value)
        return DeviceProperties(
            name=chip.device_name,
            major=major,
            minor=minor,
            total_memory=int(chip.memory_bytes.value),
            multi_processor_count=int(chip.multiprocessors.value),
            warp_size=chip.warp_size,
            regs_per_multiprocessor=chip.registers_per_block,
            max_threads_per_multi_processor=chip.threads_per_multiprocessor,
            shared_memory_per_block=49152,
            shared_memory_per_block_optin=shared,
            shared_memory_per_multiprocessor=shared,
            L2_cache_size=int(chip.l2_bytes.value),
            clock_rate=int(chip.clock_hz.value / 1e3),
        )

    @staticmethod
    def get_arch_list() -> list[str]:
        chip = _state().chip
        prefix = "mp_" if chip.device_type == "musa" else "sm_"
        return [prefix + "".join(str(part) for part in chip.compute_capability)]

    @staticmethod
    def can_device_access_peer(device: Any, peer: Any) -> bool:
        return _index(device) != _index(peer)

    @staticmethod
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return "bf16" in _state().chip.peak_flops

    @staticmethod
    def is_tf32_supported() -> bool:
        return "tf32" in _state().chip.peak_flops

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16, torch.float32]

    # ---- streams -----------------------------------------------------------

    @staticmethod
    def current_stream(device: Any = None) -> streams.Stream:
        return streams.current()

    @staticmethod
    def default_stream(device: Any = None) -> streams.Stream:
        return streams.default()

    @staticmethod
    def set_stream(stream: Any) -> None:
        if stream is not None:
            streams.set_current(stream)

    @staticmethod
    @contextlib.contextmanager
    def stream(stream: Any) -> Iterator[None]:
        with streams.on_stream(stream):
            yield

    StreamContext = stream

    @staticmethod
    def synchronize(device: Any = None) -> None:
        _state().recorder.emit(marks.SYNCHRONIZE)

    # ---- memory ------------------------------------------------------------

    memory_allocated = staticmethod(memory.allocated)
    max_memory_allocated = staticmethod(memory.max_allocated)
    memory_reserved = staticmethod(memory.reserved)
    max_memory_reserved = staticmethod(memory.max_reserved)
    memory_cached = memory_reserved
    max_memory_cached = max_memory_reserved
    memory_stats = staticmethod(memory.stats)
    memory_stats_as_nested_dict = staticmethod(memory.nested_stats)
    memory_summary = staticmethod(memory.summary)
    memory_snapshot = staticmethod(memory.snapshot)
    mem_get_info = staticmethod(memory.get_info)
    reset_peak_memory_stats = staticmethod(memory.reset_peak)
    reset_max_memory_allocated = reset_peak_memory_stats
    reset_max_memory_cached = reset_peak_memory_stats
    reset_accumulated_memory_stats = staticmethod(memory.reset_accumulated)
    empty_cache = staticmethod(memory.empty_cache)

    @staticmethod
    def ipc_collect() -> None:
        return None

    @staticmethod
    def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
        memory.set_fraction(fraction)

    # ---- random numbers ----------------------------------------------------

    @staticmethod
    def manual_seed(seed: int) -> None:
        torch.default_generator.manual_seed(seed)

    manual_seed_all = manual_seed

    @staticmethod
    def seed() -> None:
        torch.default_generator.seed()

    seed_all = seed

    @staticmethod
    def initial_seed() -> int:
        return torch.default_generator.initial_seed()

    @staticmethod
    def get_rng_state(device: Any = None) -> torch.Tensor:
        return torch.default_generator.get_state()

    @staticmethod
    def set_rng_state(new_state: torch.Tensor, device: Any = None) -> None:
        torch.default_generator.set_state(new_state)

    @staticmethod
    def get_rng_state_all() -> list[torch.Tensor]:
        return [torch.default_generator.get_state()]

    @staticmethod
    def set_rng_state_all(new_states: Any) -> None:
        for state in new_states:
            torch.default_generator.set_state(state)


@dataclass(slots=True)
class _Device:
    """The index that scripts set; every index means this process's card."""

    index: int = 0
    count: int = 1


_device = _Device()


def set_device_count(count: int, index: int = 0) -> None:
    """How many cards the script sees on its node, and which is its own."""
    _device.count = count
    _device.index = index


def _index(device: Any) -> int:
    if isinstance(device, int):
        return device
    if isinstance(device, str):
        device = torch.device(device)
    index = getattr(device, "index", None)
    return _device.index if index is None else int(index)


module = CardModule(f"torch.{BACKEND}", "The virtual card.")
"""The one backend module; ``torch.musa`` once registered."""

__all__ = ["DEVICE", "CardModule", "DeviceProperties", "module", "set_device_count"]

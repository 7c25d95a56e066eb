"""``torch.cuda.*``: every name that the card's own module serves, answered by it.

The module object stays (many modules hold it); its attributes are replaced, in ``torch.cuda`` and in the
submodules that define them. What the card's module does not have is in ``streams.py``, ``telemetry.py``,
``graphs.py`` and ``nvtx.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.cuda.graphs
import torch.cuda.memory
import torch.cuda.random
import torch.cuda.streams

from windtunnel.capture import memory_stats
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence
from windtunnel.capture.module import module as card

QUESTIONS = "is_available is_initialized device_count is_bf16_supported is_tf32_supported".split()
DEVICES = (
    "current_device set_device get_device_name get_device_capability get_device_properties get_arch_list "
    "can_device_access_peer synchronize ipc_collect"
).split()
INTERNAL = "init _lazy_init _lazy_call _is_in_bad_fork".split()
"""Called by PyTorch's C++ on the script's behalf, so never noted."""
STREAMS = "current_stream default_stream set_stream".split()
MEMORY = (
    "memory_allocated max_memory_allocated memory_reserved max_memory_reserved memory_cached "
    "max_memory_cached memory_stats memory_stats_as_nested_dict memory_summary memory_snapshot mem_get_info "
    "reset_peak_memory_stats reset_max_memory_allocated reset_max_memory_cached "
    "reset_accumulated_memory_stats empty_cache set_per_process_memory_fraction"
).split()
RANDOM = (
    "manual_seed manual_seed_all seed seed_all initial_seed get_rng_state set_rng_state get_rng_state_all "
    "set_rng_state_all"
).split()


def install(patches: Patches, pretence: Pretence) -> None:
    """Replace the attributes."""
    cuda: Any = torch.cuda
    homes: tuple[tuple[list[str], tuple[Any, ...]], ...] = (
        (DEVICES, (cuda,)),
        (STREAMS, (cuda,)),
        (MEMORY, (cuda, cuda.memory)),
        (RANDOM, (cuda, cuda.random)),
    )
    for name in QUESTIONS:
        answer = pretence.question(f"torch.cuda.{name}", getattr(card, name), getattr(cuda, name))
        patches.set(cuda, name, answer)
    for name in INTERNAL:
        patches.set(cuda, name, getattr(card, name))
    for names, owners in homes:
        for name in names:
            answer = pretence.function(f"torch.cuda.{name}", getattr(card, name), getattr(cuda, name))
            for owner in owners:
                patches.set(owner, name, answer)
    for name, target in _more().items():
        patches.set(cuda, name, pretence.function(f"torch.cuda.{name}", target))
        if hasattr(cuda.memory, name):
            patches.set(cuda.memory, name, getattr(cuda, name))
    patches.set(cuda, "device", _DeviceContext)
    patches.set(cuda, "device_of", _DeviceOf)
    patches.set(cuda, "default_generators", card.default_generators)
    patches.set(cuda, "OutOfMemoryError", torch.OutOfMemoryError)


def _more() -> dict[str, Callable[..., Any]]:
    """Names that take one line each. Allocator settings have no effect on a replayed allocator."""
    return {
        "get_per_process_memory_fraction": lambda device=None: 1.0,
        "get_allocator_backend": lambda: "native",
        "caching_allocator_enable": lambda value=True: None,
        "host_memory_stats": lambda: {},
        "host_memory_stats_as_nested_dict": lambda: {},
        "reset_peak_host_memory_stats": lambda: None,
        "reset_accumulated_host_memory_stats": lambda: None,
        "_record_memory_history": lambda *args, **kwargs: None,
        "_snapshot": lambda device=None: {"segments": memory_stats.snapshot(), "device_traces": []},
        "_dump_snapshot": _dump_snapshot,
        "get_gencode_flags": _gencode_flags,
        "set_sync_debug_mode": lambda mode: None,
        "get_sync_debug_mode": lambda: 0,
        "current_blas_handle": lambda: 0,
        "_get_device_index": card_index,
        "_sleep": lambda cycles: None,
    }


def card_index(device: Any = None, optional: bool = False, allow_cpu: bool = False) -> int:
    """The index that a device argument means, as ``torch.cuda._utils._get_device_index`` answers."""
    if device is None:
        return card.current_device()
    if isinstance(device, int):
        return device
    index = torch.device(device).index
    return card.current_device() if index is None else int(index)


def _dump_snapshot(filename: str = "dump_snapshot.pickle") -> None:
    import pickle

    with open(filename, "wb") as file:
        pickle.dump({"segments": memory_stats.snapshot(), "device_traces": []}, file)


def _gencode_flags() -> str:
    major, minor = card.get_device_capability()
    return f"-gencode compute=compute_{major}{minor},code=sm_{major}{minor}"


class _DeviceContext:
    """``with torch.cuda.device(i):``"""

    def __init__(self, device: Any) -> None:
        self.idx = card_index(device)
        self.prev_idx = -1

    def __enter__(self) -> None:
        self.prev_idx = card.current_device()
        if self.idx >= 0:
            card.set_device(self.idx)

    def __exit__(self, *_: Any) -> None:
        card.set_device(self.prev_idx)


class _DeviceOf(_DeviceContext):
    """``with torch.cuda.device_of(x):``"""

    def __init__(self, obj: Any) -> None:
        super().__init__(card.current_device())

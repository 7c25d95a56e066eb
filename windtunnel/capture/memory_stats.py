"""The memory family of ``torch.cuda``: answers from the live ledger and the allocator replay."""

from __future__ import annotations

from typing import Any

from windtunnel.capture.state import State
from windtunnel.capture.tensor import VirtualTensor


def _state() -> State:
    return VirtualTensor.state


def allocated(device: Any = None) -> int:
    """Bytes held by tensors, each rounded as the allocator rounds."""
    return _state().memory.allocator.active_bytes


def max_allocated(device: Any = None) -> int:
    """The most ``allocated`` since the last reset."""
    return _state().memory.allocator.peak_active_bytes


def reserved(device: Any = None) -> int:
    """Bytes held from the driver."""
    return _state().memory.allocator.reserved_bytes


def max_reserved(device: Any = None) -> int:
    """The most ``reserved`` since the last reset."""
    return _state().memory.allocator.peak_reserved_bytes


def stats(device: Any = None) -> dict[str, int]:
    """Flat statistics with PyTorch's key names."""
    return _state().memory.stats()


def nested_stats(device: Any = None) -> dict[str, Any]:
    """The same, nested at the dots."""
    nested: dict[str, Any] = {}
    for key, value in stats().items():
        *parents, leaf = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return nested


def summary(device: Any = None, abbreviated: bool = False) -> str:
    """A short table of the statistics."""
    lines = [f"{key:<48}{value:>20,}" for key, value in sorted(stats().items())]
    return "\n".join(lines)


def snapshot(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """Segments and blocks of the allocator."""
    return _state().memory.snapshot()


def get_info(device: Any = None) -> tuple[int, int]:
    """Free and total bytes of the card."""
    total = int(_state().chip.memory_bytes.value)
    return total - _state().memory.used_on_card_bytes(), total


def reset_peak(device: Any = None) -> None:
    """Forget peaks."""
    _state().memory.allocator.reset_peaks()


def reset_accumulated(device: Any = None) -> None:
    """Forget counts of events."""
    _state().memory.allocator.reset_accumulated()


def empty_cache() -> None:
    """Give cached segments back to the driver."""
    _state().memory.allocator.empty_cache()


def set_fraction(fraction: float) -> None:
    """Cap this process at a part of the card's memory."""
    _state().memory.set_fraction(fraction)

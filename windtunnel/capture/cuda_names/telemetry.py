"""Questions about a physical card: sensors, driver handles, NCCL. A virtual card has no true answer.

Each is answered by a harmless placeholder and listed, on every vendor's card; ``--strict`` refuses.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import torch

from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence, user_code
from windtunnel.capture.module import module as card
from windtunnel.capture.session import Session

_SENSORS: dict[str, int | str] = {
    "utilization": 0,
    "memory_usage": 0,
    "temperature": 0,
    "power_draw": 0,
    "list_gpu_processes": "no processes are running",
}
NCCL_VERSION = (2, 27, 5)  # the NCCL that PyTorch 2.13's CUDA builds carry, so that version checks pass
CUDA_VERSION = "13.0"  # the default CUDA of PyTorch 2.13's builds


def install(patches: Patches, pretence: Pretence) -> None:
    """Replace the functions in ``torch.cuda`` and ``torch.version``."""
    cuda: Any = torch.cuda
    for name, answer in _SENSORS.items():
        patches.set(cuda, name, _sensor(name, answer, pretence))
    patches.set(cuda, "device_memory_used", pretence.function("torch.cuda.device_memory_used", _used))
    patches.set(cuda, "clock_rate", pretence.function("torch.cuda.clock_rate", _clock_mhz(pretence.session)))
    patches.set(cuda, "cudart", pretence.function("torch.cuda.cudart", lambda: _CudaRuntime))
    nccl: Any = cuda.nccl
    patches.set(nccl, "version", pretence.function("torch.cuda.nccl.version", lambda: NCCL_VERSION))
    patches.set(nccl, "is_available", lambda tensors: True)
    patches.set(torch.version, "cuda", CUDA_VERSION)


def _sensor(name: str, answer: int | str, pretence: Pretence) -> Any:
    def read(device: Any = None) -> int | str:
        """A placeholder."""
        if user_code(sys._getframe(1).f_code):
            pretence.hollow(f"torch.cuda.{name}", answer)
        return answer

    read.__name__ = name
    return read


def _used(device: Any = None) -> int:
    free, total = card.mem_get_info()
    return total - free


def _clock_mhz(session: Session) -> Any:
    return lambda device=None: int(session.chip.clock_hz.value / 1e6)


class _Success(int):
    """``cudaError.success``: what ``check_error`` and comparisons take."""


class _CudaRuntime(types.SimpleNamespace):
    """``torch.cuda.cudart()``: the few calls that scripts make; all succeed and do nothing."""

    cudaError = types.SimpleNamespace(success=_Success(0))  # noqa: N815

    @staticmethod
    def cudaGetErrorString(error: int) -> str:
        return "no error" if error == 0 else "unknown error"

    @staticmethod
    def cudaMemGetInfo(device: int = 0) -> tuple[int, int]:
        return card.mem_get_info(device)

    @staticmethod
    def cudaProfilerStart() -> int:
        return _Success(0)

    @staticmethod
    def cudaProfilerStop() -> int:
        return _Success(0)

    @staticmethod
    def cudaDeviceSynchronize() -> int:
        card.synchronize()
        return _Success(0)

    @staticmethod
    def cudaHostRegister(pointer: int, size: int, flags: int = 0) -> int:
        return _Success(0)

    @staticmethod
    def cudaHostUnregister(pointer: int) -> int:
        return _Success(0)

    @staticmethod
    def cudaStreamCreate(pointer: int) -> int:
        return _Success(0)

    @staticmethod
    def cudaStreamDestroy(pointer: int) -> int:
        return _Success(0)

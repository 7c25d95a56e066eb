"""The PrivateUse1 registration: what makes PyTorch believe in the card. Pure Python, once per process.

PyTorch's C++ side asks a device guard and hooks; in 2.13 they expose a type and little else, so there is
one device, index 0, and streams are Python's own (``streams.py``). The backend is always named ``musa``:
PyTorch allows one name per process and refuses ``cuda``. For NVIDIA chips ``facade.py`` shows ``cuda``.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from windtunnel.capture import unwinding

BACKEND = "musa"
PRIVATE_USE_1: Any = torch._C._autograd.DeviceType.PrivateUse1


class _Guard(torch._C._acc.DeviceGuard):
    def type_(self) -> Any:
        unwinding.clear_error()
        return PRIVATE_USE_1


class _Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return True

    def is_built(self) -> bool:
        return True

    def has_primary_context(self, device_index: int) -> bool:
        return True


_registered: types.ModuleType | None = None


def register(module: types.ModuleType) -> None:
    """Register ``module`` as ``torch.musa`` and the card as PyTorch's accelerator. Idempotent."""
    global _registered
    if _registered is not None:
        return
    _setup_privateuseone_for_python_backend(
        BACKEND, backend_module=module, hook=_Hooks(), device_guard=_Guard()
    )
    # Backward hooks then run in the calling thread, where our thread-local state is.
    torch.autograd.set_multithreading_enabled(False)
    unwinding.install()
    _registered = module


DEVICE = torch.device("privateuseone", 0)
"""The one device; prints as ``musa:0`` after registration."""

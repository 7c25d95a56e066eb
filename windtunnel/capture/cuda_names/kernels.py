"""Factories asked for a ``cuda`` device: kernels at PyTorch's CUDA key that make card tensors.

A CPU build has no CUDA kernels, so the key is free. Serving it in the dispatcher reaches every way to
say ``cuda``: ``torch.zeros(device="cuda")``, names imported earlier, ``torch.ops``, calls from C++, at no
cost to other calls. Composite factories (``zeros``, ``randn``) come down to these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from windtunnel.capture import registrations
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence

aten = torch.ops.aten


def install(patches: Patches, pretence: Pretence) -> None:
    """Register the kernels; PyTorch's own "not linked with CUDA" errors return on restoring."""
    library = torch.library.Library("aten", "IMPL")
    patches.later(library._destroy)

    def asked(make: Callable[..., Any]) -> Callable[..., Any]:
        def on_cuda(*args: Any, **kwargs: Any) -> Any:
            pretence.device(str(kwargs.get("device") or "cuda"))
            return make(*args, **kwargs)

        return on_cuda

    library.impl("empty.memory_format", asked(registrations._empty), "CUDA")
    library.impl("empty_strided", asked(registrations._empty_strided), "CUDA")
    for name, function in registrations._FACTORIES:
        base, _, overload = name.partition(".")
        op = getattr(getattr(aten, base), overload or "default")
        library.impl(name, asked(registrations._factory(op, function)), "CUDA")

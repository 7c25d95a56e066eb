"""``torch.backends.cuda`` and ``cudnn``: flags are kept as PyTorch keeps them; questions are answered.

The TF32 switches are PyTorch's own state, which a CPU build keeps too. Once the script touches one, what
they say goes into the recording and decides how FP32 products are priced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.backends.cuda
import torch.backends.cudnn

from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence
from windtunnel.capture.state import State

CUDNN_VERSION = 91002  # cuDNN 9.10.2, as PyTorch's CUDA builds carry


def install(patches: Patches, pretence: Pretence) -> None:
    """Replace the functions; the flag objects stay."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    patches.set(
        cuda, "is_built", pretence.question("torch.backends.cuda.is_built", lambda: True, cuda.is_built)
    )
    patches.set(cuda, "cufft_plan_cache", _PlanCache())
    for name in ("can_use_flash_attention", "can_use_efficient_attention", "can_use_cudnn_attention"):
        patches.set(cuda, name, _fused_attention(pretence))
    patches.set(cuda, "is_flash_attention_available", lambda: True)
    # the module object of cudnn is PropModule: its functions live on the module it wraps
    module: Any = getattr(cudnn, "m", cudnn)
    version = pretence.function("torch.backends.cudnn.version", lambda: CUDNN_VERSION)
    patches.set(module, "version", version)
    _watch_tf32(patches, pretence)
    name = "torch.backends.cudnn.is_available"
    patches.set(module, "is_available", pretence.question(name, lambda: True, module.is_available))


_TF32_SWITCHES = ("_set_cublas_allow_tf32", "_set_float32_matmul_precision", "_set_fp32_precision_setter")


def _watch_tf32(patches: Patches, pretence: Pretence) -> None:
    before = torch.get_float32_matmul_precision()
    patches.later(lambda: torch.set_float32_matmul_precision(before))
    state = pretence.session.state
    for name in _TF32_SWITCHES:
        patches.set(torch._C, name, _switch(getattr(torch._C, name), state))


def _switch(setter: Callable[..., Any], state: State) -> Callable[..., Any]:
    def switch(*args: Any) -> Any:
        result = setter(*args)
        state.allow_tf32 = state.told_tf32 = bool(torch._C._get_cublas_allow_tf32())
        return result

    return switch


def _fused_attention(pretence: Pretence) -> Any:
    """Whether the card's own fused kernel takes these operands."""

    def can_use(parameters: Any, debug: bool = False) -> bool:
        rules = pretence.session.chip.attention
        query, value = parameters.query, parameters.value
        dtype = str(query.dtype).removeprefix("torch.")
        return rules.supports(dtype, query.shape[-1], value.shape[-1])

    return can_use


class _PlanCache:
    """cuFFT plans: none are kept, so there is nothing to count or clear."""

    size = 0
    max_size = 4096

    def clear(self) -> None:
        """Nothing to clear."""

    def __getitem__(self, device: Any) -> _PlanCache:
        return self

"""Kernels registered with PyTorch's dispatcher: what reaches the card without a card tensor, and autocast.

A factory has no tensor argument, so ``__torch_dispatch__`` never sees it; some calls run with Python
dispatch excluded; composite operators that real devices implement whole would otherwise come in pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

from windtunnel.capture.autocast_lists import FLOAT32, LOWER_PRECISION, PROMOTE
from windtunnel.capture.backend import BACKEND
from windtunnel.capture.describe import op_spec
from windtunnel.capture.meta import dtype_name
from windtunnel.capture.tensor import VirtualTensor, wrap
from windtunnel.program.program import NoticeKind

aten = torch.ops.aten
_keys: Any = torch._C.DispatchKey

_WHOLE_OPS = (
    "silu_backward",
    "_fused_rms_norm",
    "_fused_rms_norm_backward",
    "mish_backward",
    "native_channel_shuffle",
    "isfinite",
    "isinf",
)
"""Composite operators that a real card implements: any kernel of ours brings them to dispatch whole."""

_FACTORIES = (
    ("arange", torch.arange),
    ("arange.start", torch.arange),
    ("arange.start_step", torch.arange),
    ("tril_indices", torch.tril_indices),
    ("triu_indices", torch.triu_indices),
)

_libraries: list[torch.library.Library] = []


def register_kernels() -> None:
    """Register everything, once per process."""
    if _libraries:
        return
    library = torch.library.Library("aten", "IMPL")
    _libraries.append(library)
    _register_factories(library)
    _register_whole_ops(library)
    # PyTorch has this for CUDA only; values mode computes on the CPU
    library.impl("_fused_rms_norm_backward", _rms_norm_backward, "CPU")
    for key in ("AutogradPrivateUse1", "PrivateUse1"):
        library.impl("scaled_dot_product_attention", _attention, key)
        library.impl("rms_norm", _rms_norm, key)
    _register_autocast(library)


def _dispatch(func: Any, *args: Any, **kwargs: Any) -> Any:
    return VirtualTensor.state.dispatch(func, args, kwargs)


def _register_factories(library: torch.library.Library) -> None:
    library.impl("empty.memory_format", _empty, "PrivateUse1")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    library.impl("_copy_from_and_resize", lambda source, target: _copy_from(source, target), "PrivateUse1")
    library.impl("record_stream", lambda tensor, stream: None, "PrivateUse1")
    # torch.tensor([card_scalar]) reads with Python dispatch excluded
    library.impl(
        "_local_scalar_dense", lambda t: _dispatch(aten._local_scalar_dense.default, t), "PrivateUse1"
    )
    library.impl("_efficientzerotensor", _zeros, "PrivateUse1")
    for name, function in _FACTORIES:
        base, _, overload = name.partition(".")
        op = getattr(getattr(aten, base), overload or "default")
        library.impl(name, _factory(op, function), "PrivateUse1")


def _register_whole_ops(library: torch.library.Library) -> None:
    for name in _WHOLE_OPS:
        op = getattr(aten, name).default
        library.impl(name, lambda *a, _op=op, **k: _dispatch(_op, *a, **k), "PrivateUse1")


def _empty(
    size: Any,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: Any = None,
) -> VirtualTensor:
    state = VirtualTensor.state
    where = state.factory_device(dtype, math.prod(size))
    plain = torch.empty(
        size, dtype=dtype, device=where, memory_format=memory_format or torch.contiguous_format
    )
    return _new(aten.empty.memory_format, plain)


def _empty_strided(
    size: Any,
    stride: Any,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> VirtualTensor:
    state = VirtualTensor.state
    where = state.factory_device(dtype, math.prod(size))
    return _new(aten.empty_strided.default, torch.empty_strided(size, stride, dtype=dtype, device=where))


def _zeros(size: Any, dtype: Any = None, **_: Any) -> VirtualTensor:
    """What forward-mode derivatives start from; ours take memory."""
    where = VirtualTensor.state.factory_device(dtype, math.prod(size))
    return _new(aten.zeros.default, torch.zeros(size, dtype=dtype, device=where))


def _new(func: Any, plain: torch.Tensor) -> VirtualTensor:
    state = VirtualTensor.state
    place = state.recorder.reserve()
    out = wrap(plain)
    state.recorder.fill(place, op_spec(state.dispatch.info(func), (), {}, out))
    return out


def _factory(op: Any, function: Callable[..., torch.Tensor]) -> Callable[..., VirtualTensor]:
    def make(*args: Any, **kwargs: Any) -> VirtualTensor:
        for name in ("device", "layout", "pin_memory"):
            kwargs.pop(name, None)
        state = VirtualTensor.state
        shape = function(*args, **kwargs, device="meta")
        where = state.factory_device(shape.dtype, shape.numel())
        return _new(op, function(*args, **kwargs) if where.type == "cpu" else shape)

    return make


def _copy_from(source: Any, target: Any, non_blocking: bool = False) -> Any:
    return _dispatch(aten.copy_.default, target, source, non_blocking)


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """The chip's own choice: its fused kernel where it takes the shape, matrix products otherwise."""
    state = VirtualTensor.state
    rules = state.chip.attention
    dtype = dtype_name(query.dtype)
    fused = query.dim() == 4 and rules.supports(dtype, query.shape[-1], value.shape[-1])
    if fused and not (attn_mask is not None and attn_mask.requires_grad and not rules.mask_gradient):
        if attn_mask is None and not isinstance(query, VirtualTensor) and hasattr(query, "device_mesh"):
            flash = aten._scaled_dot_product_flash_attention  # DTensor knows how to shard this name only
            return flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
        op = aten._scaled_dot_product_fused_attention_overrideable
        return op(query, key, value, attn_mask, dropout_p, is_causal, False, scale=scale)[0]
    state.recorder.notice(
        NoticeKind.FALLBACK,
        f"attention of {dtype} with head dimension {query.shape[-1]} runs as separate matrix products "
        f"on {state.chip.title}",
    )
    return aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )[0]


def _rms_norm(x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """One kernel, as on CUDA; PyTorch would decompose it for a device that it does not know."""
    return aten._fused_rms_norm(x, normalized_shape, weight, eps)[0]


def _rms_norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    normalized_shape: list[int],
    rstd: torch.Tensor,
    weight: torch.Tensor | None,
    wanted: list[bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """In FP32, as the CUDA kernel does whatever the tensors' type."""
    inner = tuple(range(x.dim() - len(normalized_shape), x.dim()))
    outer = tuple(range(x.dim() - len(normalized_shape)))
    wide = torch.promote_types(x.dtype, torch.float32)
    scaled, g = x.to(wide) * rstd, grad.to(wide)
    weighted = g if weight is None else g * weight.to(wide)
    mean = (weighted * scaled).mean(inner, keepdim=True)
    for_x = (rstd * (weighted - scaled * mean)).to(x.dtype) if wanted[0] else None
    for_weight = None
    if wanted[1] and weight is not None:
        for_weight = ((g * scaled).sum(outer) if outer else g * scaled).to(weight.dtype)
    return for_x, for_weight


def _register_autocast(library: torch.library.Library) -> None:
    everything = torch.library.Library("_", "IMPL")
    _libraries.append(everything)
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for names, cast in ((LOWER_PRECISION, _lower), (FLOAT32, _to_float32), (PROMOTE, None)):
        for name in names:
            base, _, overload = name.partition(".")
            packet = getattr(aten, base, None)
            op = getattr(packet, overload or "default", None) if packet is not None else None
            if op is not None:
                library.impl(name, _autocast(op, cast), "AutocastPrivateUse1")


def _autocast(op: Any, cast: Callable[[Any], Any] | None) -> Callable[..., Any]:
    excluded = torch._C.DispatchKeySet(_keys.AutocastPrivateUse1)

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(excluded):
            convert = cast or _widest_of(args, kwargs)
            return op(*tree_map(convert, args), **tree_map(convert, kwargs))

    return run


def _on_card(value: Any) -> bool:
    """A card tensor, or the compiler's stand-in for one."""
    if isinstance(value, VirtualTensor):
        return True
    return isinstance(value, torch.Tensor) and value.device.type == BACKEND


_weight_casts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}


def _lower(value: Any) -> Any:
    """To the autocast dtype. A parameter is cast once per region, as PyTorch's weight cache does."""
    if not _on_card(value) or value.dtype is not torch.float32:
        return value
    dtype = torch.get_autocast_dtype(BACKEND)
    cacheable = value.requires_grad and value.is_leaf and torch.is_autocast_cache_enabled()
    cacheable = cacheable and isinstance(value, VirtualTensor)
    if not cacheable:
        return value.to(dtype)
    cached = _weight_casts.get(id(value))
    if cached is None or cached[0] is not value or cached[1].dtype is not dtype:
        cached = _weight_casts[id(value)] = (value, value.to(dtype))
    return cached[1]


def clear_autocast_cache() -> None:
    """At the end of the outermost autocast region."""
    _weight_casts.clear()


def _to_float32(value: Any) -> Any:
    if _on_card(value) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()
    return value


def _widest_of(args: Any, kwargs: Any) -> Callable[[Any], Any]:
    tensors = [a for a in (*args, *kwargs.values()) if _on_card(a)]
    if any(t.dtype is torch.float32 for t in tensors):
        return _to_float32
    return lambda value: value

"""Moving to ``cuda``: ``Tensor.to``, ``.cuda()``, ``new_tensor``, ``as_tensor``, typed constructors.

``Module.to`` and ``Module.cuda`` come down to these. A tensor that is on the card already must come back
itself, so the device is translated before PyTorch compares it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _device

from windtunnel.capture.backend import DEVICE
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence

_device_type: Any = vars(torch.device)["type"].__get__

Translate = Callable[[Any], Any]


def translator(pretence: Pretence) -> Translate:
    """A function that turns ``"cuda"`` devices, and device numbers, into the card; all else comes back."""

    def translate(device: Any) -> Any:
        kind = device.__class__
        if kind is str:
            if device != "cuda" and not device.startswith("cuda:"):
                return device
        elif kind is torch.device:
            if _device_type(device) != "cuda":
                return device
        elif kind is int:
            return DEVICE
        else:
            return device
        pretence.device(str(device))
        return DEVICE

    return translate


def install(patches: Patches, pretence: Pretence) -> None:
    """Wrap the methods and functions."""
    translate = translator(pretence)
    # `with torch.device(...)` knows factories by identity, from a table that it fills once
    _device._device_constructors()
    tensor: Any = torch.Tensor
    _wrap_to(patches, tensor, translate)
    _wrap_cuda(patches, tensor, pretence)
    for name in ("new_tensor", "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"):
        patches.set(tensor, name, _device_keyword(getattr(tensor, name), translate))
    for name in ("as_tensor", "asarray", "tensor", "sparse_coo_tensor", "sparse_csr_tensor", "empty_like"):
        patches.set(torch, name, _device_keyword(getattr(torch, name), translate))
    for name in ("zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like"):
        patches.set(torch, name, _device_keyword(getattr(torch, name), translate))
    _wrap_type(patches, tensor, pretence)
    _typed_constructors(patches, pretence)


def _wrap_to(patches: Patches, tensor: Any, translate: Translate) -> None:
    to = tensor.to

    @functools.wraps(to)
    def to_(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args:
            first = translate(args[0])
            if first is not args[0]:
                args = (first, *args[1:])
        if "device" in kwargs:
            kwargs["device"] = translate(kwargs["device"])
        return to(self, *args, **kwargs)

    patches.set(tensor, "to", to_)


def _wrap_cuda(patches: Patches, tensor: Any, pretence: Pretence) -> None:
    def cuda(
        self: torch.Tensor,
        device: Any = None,
        non_blocking: bool = False,
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> torch.Tensor:
        pretence.placed(".cuda()")
        return self.to(DEVICE, non_blocking=non_blocking, memory_format=memory_format)

    patches.set(tensor, "cuda", cuda)


def _device_keyword(function: Any, translate: Translate) -> Any:
    @functools.wraps(function)
    def with_device(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("device") is not None:
            kwargs["device"] = translate(kwargs["device"])
        return function(*args, **kwargs)

    return with_device


_TYPED = {
    "FloatTensor": torch.float32,
    "DoubleTensor": torch.float64,
    "HalfTensor": torch.float16,
    "BFloat16Tensor": torch.bfloat16,
    "LongTensor": torch.int64,
    "IntTensor": torch.int32,
    "ShortTensor": torch.int16,
    "CharTensor": torch.int8,
    "ByteTensor": torch.uint8,
    "BoolTensor": torch.bool,
}


def _typed_constructors(patches: Patches, pretence: Pretence) -> None:
    """``torch.cuda.FloatTensor`` and its kind, from before ``device=`` existed."""
    for name, dtype in _TYPED.items():
        patches.set(torch.cuda, name, _typed(name, dtype, pretence))


def _typed(name: str, dtype: torch.dtype, pretence: Pretence) -> type:
    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            on_card = isinstance(value, torch.Tensor) and value.device.type not in ("cpu", "meta")
            return on_card and isinstance(value, torch.Tensor) and value.dtype is dtype

        def __call__(cls, *args: Any) -> torch.Tensor:
            pretence.placed(f"torch.cuda.{name}")
            if args and not isinstance(args[0], int):
                return torch.as_tensor(args[0], dtype=dtype, device=DEVICE)
            return torch.empty(args, dtype=dtype, device=DEVICE)

    return Meta(name, (), {"dtype": dtype, "__module__": "torch.cuda"})


def _wrap_type(patches: Patches, tensor: Any, pretence: Pretence) -> None:
    """``x.type(torch.cuda.FloatTensor)`` and ``x.type("torch.cuda.FloatTensor")`` move as well as cast."""
    plain = tensor.type

    @functools.wraps(plain)
    def type_(self: torch.Tensor, dtype: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
        if getattr(dtype, "__module__", "") == "torch.cuda":
            dtype = f"torch.cuda.{dtype.__name__}"
        if isinstance(dtype, str) and dtype.startswith("torch.cuda."):
            pretence.placed(dtype)
            return self.to(DEVICE, _TYPED[dtype.removeprefix("torch.cuda.")], non_blocking)
        return plain(self, dtype, non_blocking, **kwargs) if dtype is not None else plain(self)

    patches.set(tensor, "type", type_)

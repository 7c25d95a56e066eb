"""Cache keys: two calls with the same key do the same to shapes, so the second needs no shape inference.

A key holds the operation's identity, the interned ``Meta`` of each tensor, and type and value of every
other argument (1, 1.0 and True compare equal but promote differently).
"""

from __future__ import annotations

from typing import Any

import torch

from windtunnel.capture.tensor import VirtualTensor

_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)


class Call:
    """A call taken apart: its key (None: not cacheable), its card tensors, whether all hold values."""

    __slots__ = ("all_valued", "any_valued", "cpu", "key", "tensors")

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.tensors: list[VirtualTensor] = []
        self.cpu: list[torch.Tensor] = []
        self.all_valued = True
        self.any_valued = False
        key: list[Any] = [id(func)]
        cacheable = self._add(args, key)
        if kwargs:
            for name, value in kwargs.items():
                key.append(name)
                cacheable &= self._add((value,), key)
        self.key: tuple[Any, ...] | None = tuple(key) if cacheable else None

    def _add(self, values: Any, key: list[Any]) -> bool:
        cacheable = True
        append = key.append
        for value in values:
            cls = value.__class__
            if cls is VirtualTensor:
                append(value.meta)
                self.tensors.append(value)
                if value.elem is None or not value.store.valued:
                    self.all_valued = False
                else:
                    self.any_valued = True
            elif cls is list or cls is tuple:
                append(len(value))
                cacheable &= self._add(value, key)
            elif isinstance(value, torch.Tensor):
                self.cpu.append(value)
                append(value.dtype)
                append(tuple(value.shape))
            elif isinstance(value, _PLAIN):
                append(cls)
                append(value)
            elif isinstance(value, torch.Generator):
                append(None)
            else:
                cacheable = False
        return cacheable

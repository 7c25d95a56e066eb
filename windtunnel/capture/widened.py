"""The CPU lacks kernels for some dtypes that cards have: compute in a wider one, and narrow the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map


def call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """``function`` in float64 for integers, float32 for halves; float results are cast back.

    Written arguments (``out=``, in place) receive the narrowed result.

    Raises:
        NotImplementedError: the wider dtype has no kernel either.
    """
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    if not tensors:
        raise NotImplementedError(f"{function} has no CPU kernel")
    narrow = tensors[0].dtype
    wide = torch.float32 if narrow.is_floating_point else torch.float64
    if narrow is wide:
        raise NotImplementedError(f"{function} has no CPU kernel for {narrow}")
    copies: dict[int, torch.Tensor] = {}

    def widen(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype is narrow:
            copies[id(value)] = value.to(wide)
            return copies[id(value)]
        return value

    out = function(*tree_map(widen, args), **tree_map(widen, kwargs))
    originals = {id(copy): value for value in tensors if (copy := copies.get(id(value))) is not None}

    def back(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        original = originals.get(id(value))
        if original is not None:
            return original.copy_(value)
        return value.to(narrow) if value.dtype is wide else value

    return tree_map(back, out)

"""What a real card refuses and meta kernels let pass: mixed devices, and mixed dtypes of matrix products."""

from __future__ import annotations

from typing import Any

from windtunnel.capture.describe import OpInfo
from windtunnel.capture.keys import Call

_MATRIX_PRODUCTS = frozenset(
    f"aten.{name}"
    for name in (
        "mm.default",
        "addmm.default",
        "bmm.default",
        "baddbmm.default",
        "convolution.default",
        "addmv.default",
        "mv.default",
        "dot.default",
        "_grouped_mm.default",
    )
)
# Their tensor arguments may live on the CPU on a real card too.
_TAKES_CPU_TENSORS = (
    "aten.copy_",
    "aten._to_copy",
    "aten.index",
    "aten._index",
    "aten.set_",
    "aten._copy_from",
)


def check_call(info: OpInfo, args: tuple[Any, ...], call: Call) -> None:
    """Raise what the real card would raise.

    Raises:
        RuntimeError: tensors on different devices, or a matrix product of different dtypes.
    """
    if call.cpu and call.tensors and not info.name.startswith(_TAKES_CPU_TENSORS):
        stray = next((tensor for tensor in call.cpu if tensor.dim() and not tensor.is_meta), None)
        if stray is not None:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{call.tensors[0].shown_device} and {stray.device}! (when checking arguments of {info.name})"
            )
    if info.name in _MATRIX_PRODUCTS and len(call.tensors) > 1:
        first = call.tensors[0].dtype
        for other in call.tensors[1:]:
            if other.dtype is not first and other.dtype.is_floating_point:
                raise RuntimeError(
                    f"expected mat1 and mat2 to have the same dtype, but got: {_spoken(first)} != "
                    f"{_spoken(other.dtype)}"
                )


def _spoken(dtype: Any) -> str:
    names = {
        "torch.float32": "float",
        "torch.float64": "double",
        "torch.float16": "c10::Half",
        "torch.bfloat16": "c10::BFloat16",
    }
    return names.get(str(dtype), str(dtype).removeprefix("torch."))

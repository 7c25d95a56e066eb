"""Triton kernels launched on card tensors are recorded, not run: ``kernel[grid](x, y, ...)``.

Their cost is what ``register_op`` says, or the bytes of their tensor arguments, marked assumed. In values
mode they are refused: there is no Triton interpreter for the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from windtunnel.capture import after_import
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError
from windtunnel.program import kernels
from windtunnel.program.op import OpSpec


def install() -> None:
    """Patch Triton when it is imported, or now if it was."""
    after_import.call("triton.runtime.jit", _patch)


def _patch(module: ModuleType) -> None:
    function: Any = module.JITFunction
    run = function.run

    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, VirtualTensor)]
        return _record(self, tensors) if tensors else run(self, *args, **kwargs)

    function.run = recorded


def _record(kernel: Any, tensors: Sequence[VirtualTensor]) -> None:
    name = str(getattr(getattr(kernel, "fn", kernel), "__name__", "kernel"))
    state = VirtualTensor.state
    if str(state.mode) == "values":
        raise WindtunnelError(
            "E421",
            f"the Triton kernel `{name}` cannot compute values on the card",
            hint="run without `--values`, or call a PyTorch version of it in values mode",
        )
    specs = tuple(tensor.meta.spec for tensor in tensors)
    # a kernel may write any of its arguments: values they held are gone
    for tensor in tensors:
        tensor.store.valued = False
    spec = OpSpec(kernels.CUSTOM, specs, (), (("kernel", name),))
    state.recorder.op(state.recorder.spec_number(spec))

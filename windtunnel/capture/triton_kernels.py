"""Triton kernels launched on card tensors are recorded, not run: ``kernel[grid](x, y, ...)``.

Their cost is what ``register_op`` says, or the bytes of their tensor arguments, marked assumed. In values
mode they are refused: there is no Triton interpreter for the card.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError
from windtunnel.program import kernels
from windtunnel.program.op import OpSpec

_JIT = "triton.runtime.jit"


def install() -> None:
    """Patch Triton when it is imported, or now if it was."""
    module = sys.modules.get(_JIT)
    if module is not None:
        _patch(module)
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


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


class _AfterImport(importlib.abc.MetaPathFinder):
    """Lets Python import Triton as usual, and patches it right after."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != _JIT:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _PatchingLoader(spec.loader)
        return spec


class _PatchingLoader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self.loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _patch(module)

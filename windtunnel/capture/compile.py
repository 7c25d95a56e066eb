"""``torch.compile`` on the card: dynamo traces card tensors, and our backend takes inductor's place.

Regions are recorded as a fusing compiler would launch them (``fusion.py``, ``compiled.py``). Compile time
itself is not modelled. Flex attention inside a compiled region makes that graph run uncompiled.
"""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Any

import torch

from windtunnel.capture import hooks
from windtunnel.capture.block_masks import UNCOMPILED
from windtunnel.capture.compiled import CompiledGraph
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program.program import NoticeKind


def install() -> None:
    """Prepare dynamo at the first ``torch.compile``: importing it takes a second that most runs save."""
    compile_function = torch.compile

    @functools.wraps(compile_function)
    def prepared(*args: Any, **kwargs: Any) -> Any:
        fused = getattr(args[0], UNCOMPILED, None) if args else None
        if fused is not None:
            return fused
        _prepare_dynamo()
        return compile_function(*args, **kwargs)

    torch.compile = prepared


@functools.cache
def _prepare_dynamo() -> None:
    """Make dynamo take a card tensor for a plain one, and answer for the default backend."""
    import torch._dynamo.trace_rules as trace_rules
    import torch._dynamo.variables.builder as builder_module

    builder: Any = builder_module
    wrap, infer = builder.VariableBuilder._wrap, builder.infer_subclass_type

    def wrap_card(self: Any, value: Any) -> Any:
        return self.wrap_tensor(value) if isinstance(value, VirtualTensor) else wrap(self, value)

    def infer_card(value: Any) -> Any:
        return None if isinstance(value, VirtualTensor) else infer(value)

    builder.VariableBuilder._wrap = wrap_card
    builder.infer_subclass_type = infer_card
    for name in list(sys.modules):
        if name.startswith("windtunnel.capture.") and name != hooks.__name__:
            trace_rules.add(name)
    # our hooks do nothing inside a region, so firing twice does no harm
    warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are global hooks")
    inductor: Any = torch._TorchCompileInductorWrapper
    inductor.__call__ = _compile


def _compile(self: Any, graph: torch.fx.GraphModule, example_inputs: Any, **kwargs: Any) -> Any:
    """What ``torch.compile``'s default backend does on the card."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    if not any(isinstance(leaf, VirtualTensor) for leaf in example_inputs) and not _on_card(graph):
        return graph  # nothing on the card: the CPU runs it as it is
    if _has_higher_order(graph):
        VirtualTensor.state.recorder.notice(
            NoticeKind.SKIPPED, "a compiled region with flex attention runs operation by operation"
        )
        return graph
    config = getattr(self, "config", None) or {}
    as_graph = bool(config.get("triton.cudagraphs"))

    def compiler(label: str) -> Any:
        def compile_one(module: torch.fx.GraphModule, inputs: Any) -> Any:
            return make_boxed_func(CompiledGraph(module, label, as_graph))

        return compile_one

    backend = aot_autograd(
        fw_compiler=compiler("forward"),
        bw_compiler=compiler("backward"),
        inference_compiler=compiler("inference"),
        partition_fn=min_cut_rematerialization_partition,
    )
    return backend(graph, example_inputs)


def _on_card(graph: torch.fx.GraphModule) -> bool:
    tensors = (*graph.parameters(), *graph.buffers())
    return any(isinstance(tensor, VirtualTensor) for tensor in tensors)


def _has_higher_order(graph: torch.fx.GraphModule) -> bool:
    return any(
        isinstance(node.target, torch._ops.HigherOrderOperator)
        for module in graph.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
    )

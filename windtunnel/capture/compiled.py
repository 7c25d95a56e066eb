"""Runs a compiled graph on the card: each fused group is recorded as one kernel.

``torch.compile`` hands over graphs of core operators after autograd and min-cut partitioning, so the
recomputation that a real compiler does is in them already.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from windtunnel.capture import fusion
from windtunnel.capture.meta import Meta, intern
from windtunnel.capture.tensor import VirtualTensor, fresh
from windtunnel.program import marks
from windtunnel.program.op import OpSpec

_WHERE = re.compile(r'File "(.+)", line (\d+), in (\S+)')


class CompiledGraph:
    """A graph ready to run many times.

    Args:
        module: the graph, of ATen operators.
        label: ``forward``, ``backward`` or ``inference``.
        as_graph: launched as one device graph (``mode="reduce-overhead"``).
    """

    def __init__(self, module: torch.fx.GraphModule, label: str, as_graph: bool) -> None:
        self.module = module
        self.label = label
        self.as_graph = as_graph
        self.order = fusion.fuse(module.graph)
        self._output = next(node for node in module.graph.nodes if node.op == "output")
        self._users_left = {node: len(node.users) for node in module.graph.nodes}
        self._group_io = {item.number: _io(item) for item in self.order if isinstance(item, fusion.Group)}

    def __call__(self, *args: Any) -> Any:
        """Run with inputs in placeholder order; returns the graph's outputs."""
        state = VirtualTensor.state
        if self.as_graph:
            state.recorder.emit(marks.GRAPH_LAUNCH, kernels=len(self.order))
        values: dict[torch.fx.Node, Any] = {}
        left = dict(self._users_left)
        inputs = iter(args)
        for item in self.order:
            if isinstance(item, fusion.Group):
                self._run_group(item, values)
                members = item.nodes
            else:
                members = [item]
                if item.op == "output":
                    continue
                if item.op == "placeholder":
                    values[item] = next(inputs)
                else:
                    self._run_node(item, values)
            _release(members, values, left)
        if self.as_graph:
            state.recorder.emit(marks.GRAPH_END)
        return torch.fx.node.map_arg(self._output.args[0], lambda node: values[node])

    def _run_node(self, node: torch.fx.Node, values: dict[torch.fx.Node, Any]) -> None:
        if node.op == "get_attr":
            values[node] = getattr(self.module, str(node.target))
            return
        args = torch.fx.node.map_arg(node.args, lambda n: values[n])
        kwargs = torch.fx.node.map_arg(node.kwargs, lambda n: values[n])
        with _Place(node):
            target: Any = node.target
            values[node] = target(*args, **kwargs)

    def _run_group(self, group: fusion.Group, values: dict[torch.fx.Node, Any]) -> None:
        """One kernel: read each outside input once, write each result that leaves the group."""
        reads, results = self._group_io[group.number]
        state = VirtualTensor.state
        sources = [leaf for node in reads for leaf in tree_leaves(values[node])]
        tensors = [leaf for leaf in sources if isinstance(leaf, VirtualTensor)]
        data_less = any(tensor.host_values is None for tensor in tensors)
        with _Place(group.nodes[-1]):
            place = state.recorder.reserve()
            if data_less or not tensors:
                for node in results:
                    values[node] = _make(node.meta["val"])
            else:
                self._compute_group(group, values)
            written = [leaf for node in results for leaf in tree_leaves(values[node])]
            members = [node for node in group.nodes if fusion.is_fusible(node)]  # not the views between
            names = tuple(str(node.target).removeprefix("aten.") for node in members)
            spec = OpSpec(
                "windtunnel.fused",
                tuple(tensor.meta.spec for tensor in tensors),
                tuple(leaf.meta.spec for leaf in written if isinstance(leaf, VirtualTensor)),
                (("ops", len(names)), ("names", names)),
            )
            state.recorder.fill(place, spec)

    def _compute_group(self, group: fusion.Group, values: dict[torch.fx.Node, Any]) -> None:
        recorder = VirtualTensor.state.recorder
        paused, recorder.paused = recorder.paused, True
        try:
            for node in group.nodes:
                self._run_node(node, values)
        finally:
            recorder.paused = paused


def _io(group: fusion.Group) -> tuple[list[torch.fx.Node], list[torch.fx.Node]]:
    """Outside nodes that a group reads, and members whose results leave it."""
    inside = set(group.nodes)
    reads: dict[torch.fx.Node, None] = {}
    results = []
    for node in group.nodes:
        reads.update(dict.fromkeys(s for s in node.all_input_nodes if s not in inside))
        if any(user not in inside for user in node.users):
            results.append(node)
    return list(reads), results


def _release(
    members: list[torch.fx.Node], values: dict[torch.fx.Node, Any], left: dict[torch.fx.Node, int]
) -> None:
    """Drop what nobody reads any more, as compiled code does."""
    for node in members:
        for source in node.all_input_nodes:
            left[source] -= 1
            if left[source] == 0 and source.op != "placeholder":
                values.pop(source, None)


def _make(value: Any) -> Any:
    """A data-less card tensor like a fake tensor, or several."""
    if isinstance(value, torch.Tensor):
        return fresh(_meta(value))
    if isinstance(value, (tuple, list)):
        return type(value)(_make(item) for item in value)
    return value


def _meta(value: torch.Tensor) -> Meta:
    shape = tuple(int(size) for size in value.shape)
    stride = tuple(int(step) for step in value.stride())
    return intern(value.dtype, shape, stride)


class _Place:
    """Attributes what runs inside to the source line and module that a graph node came from."""

    def __init__(self, node: torch.fx.Node) -> None:
        self.node = node

    def __enter__(self) -> None:
        context = VirtualTensor.state.context
        self._previous = context.override
        node = self.node
        stack = node.meta.get("stack_trace") or ""
        found = _WHERE.findall(stack)
        modules = node.meta.get("nn_module_stack") or node.meta.get("fwd_nn_module_stack") or {}
        path = next((entry[0] for entry in reversed(list(modules.values()))), "")
        scope = context.scope_number(_clean(str(path))) if path else context.scope
        line = context.line_at(found[-1][0], int(found[-1][1]), found[-1][2]) if found else None
        context.override = (scope, line)

    def __exit__(self, *_: Any) -> None:
        VirtualTensor.state.context.override = self._previous


def _clean(path: str) -> str:
    """Dynamo's ``L['self']._modules['layers']._modules['0']`` as ``layers.0``."""
    names = re.findall(r"\['([^']+)'\]|\.([A-Za-z_]\w*)", path)
    parts = [a or b for a, b in names]
    return ".".join(part for part in parts if part not in ("self", "_modules", "fn", "_orig_mod"))

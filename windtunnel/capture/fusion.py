"""Which operations of a compiled graph become one kernel.

The rule is that of a fusing compiler, simplified: pointwise operations and reductions over the same
iteration space are one kernel; matrix products, attention, sorts and copies between devices stand alone.
A group never waits for something that waits for the group. No scheduling heuristics beyond that: the
result says how many passes over memory a compiled region costs, not which tiles it uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

aten = torch.ops.aten

_POINTWISE = torch.Tag.pointwise
_REDUCTIONS = frozenset(
    """
    sum mean amax amin max min var var_mean std argmax argmin prod any all _softmax _log_softmax
    _softmax_backward_data _log_softmax_backward_data native_layer_norm native_layer_norm_backward
    _fused_rms_norm _fused_rms_norm_backward linalg_vector_norm logsumexp norm
    """.split()
)
_CHEAP = frozenset(
    """
    _to_copy clone copy full full_like zeros_like ones_like scalar_tensor where cat constant_pad_nd
    native_dropout native_dropout_backward arange iota embedding nll_loss_forward nll_loss_backward
    convert_element_type rand_like expand slice_scatter select_scatter inductor_seeds
    inductor_random
    """.split()
)
_VIEWS = frozenset(
    """
    view reshape t transpose permute expand unsqueeze squeeze slice select split split_with_sizes
    unbind alias detach _unsafe_view as_strided view_as_real view_as_complex unfold diagonal
    """.split()
)


@dataclass(slots=True)
class Group:
    """Nodes that become one kernel, in topological order."""

    number: int
    space: int
    nodes: list[torch.fx.Node] = field(default_factory=list)


def _name(node: torch.fx.Node) -> str:
    target: Any = node.target
    return target._schema.name.split("::")[-1] if isinstance(target, torch._ops.OpOverload) else ""


def is_view(node: torch.fx.Node) -> bool:
    """Whether a node only changes how memory is looked at."""
    return node.op == "call_function" and _name(node) in _VIEWS


def is_fusible(node: torch.fx.Node) -> bool:
    """Whether a node can be part of a fused kernel."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    name = _name(node)
    return _POINTWISE in node.target.tags or name in _REDUCTIONS or name in _CHEAP


def numel_of(value: Any) -> int:
    """Elements of a fake tensor, or of the largest of several."""
    if isinstance(value, torch.Tensor):
        return math.prod(int(size) for size in value.shape)
    if isinstance(value, (tuple, list)):
        return max((numel_of(item) for item in value), default=0)
    return 0


def fuse(graph: torch.fx.Graph) -> list[Group | torch.fx.Node]:
    """The graph's operations in an order that can be executed, fused ones as groups.

    A view between two members of a group belongs to the group; other views stay nodes of their own.
    """
    group_of: dict[torch.fx.Node, Group] = {}
    groups: list[Group] = []
    for node in graph.nodes:
        if not is_fusible(node):
            continue
        target = _joinable(node, group_of)
        if target is None:
            target = Group(len(groups), _space(node))
            groups.append(target)
        target.nodes.append(node)
        group_of[node] = target
    _take_inner_views(graph, group_of)
    return _ordered(graph, group_of)


def _take_inner_views(graph: torch.fx.Graph, group_of: dict[torch.fx.Node, Group]) -> None:
    """Put views that lead from a group back into it among its nodes: it could not be ordered around them."""
    readers: dict[torch.fx.Node, set[int]] = {}
    views = [node for node in graph.nodes if node not in group_of and (is_view(node) or _is_getitem(node))]
    for view in reversed(views):
        reading = {group_of[user].number for user in view.users if user in group_of}
        readers[view] = reading.union(*(readers.get(user, set()) for user in view.users))
    position = {node: index for index, node in enumerate(graph.nodes)}
    for view in views:
        for source in _through_views(view):
            group = group_of.get(source)
            if group is not None and group.number in readers[view]:
                group.nodes.append(view)
                group.nodes.sort(key=position.__getitem__)
                group_of[view] = group


def _space(node: torch.fx.Node) -> int:
    """The iteration space: elements of the largest input or output."""
    sizes = [numel_of(node.meta.get("val"))]
    sizes += [numel_of(source.meta.get("val")) for source in node.all_input_nodes]
    return max(sizes)


def _joinable(node: torch.fx.Node, group_of: dict[torch.fx.Node, Group]) -> Group | None:
    """The latest producer's group of the same space that the node does not otherwise wait for."""
    sources = _through_views(node)
    candidates = {group_of[s].number: group_of[s] for s in sources if s in group_of}
    space = _space(node)
    for number in sorted(candidates, reverse=True):
        group = candidates[number]
        if group.space != space:
            continue
        outside = [s for s in sources if group_of.get(s) is not group]
        if not _any_waits_for(outside, group, group_of):
            return group
    return None


def _through_views(node: torch.fx.Node) -> list[torch.fx.Node]:
    """Inputs, with views (and getitem) replaced by what they look at."""
    result = []
    pending = list(node.all_input_nodes)
    while pending:
        source = pending.pop()
        if is_view(source) or _is_getitem(source):
            pending.extend(source.all_input_nodes)
        else:
            result.append(source)
    return result


def _is_getitem(node: torch.fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"


def _any_waits_for(starts: list[torch.fx.Node], group: Group, group_of: dict[torch.fx.Node, Group]) -> bool:
    """Whether any of ``starts`` depends on the group, through whole groups."""
    seen: set[torch.fx.Node] = set()
    pending = list(starts)
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        owner = group_of.get(node)
        if owner is group:
            return True
        members = owner.nodes if owner is not None else [node]
        for member in members:
            seen.add(member)
            pending.extend(member.all_input_nodes)
    return False


def _ordered(graph: torch.fx.Graph, group_of: dict[torch.fx.Node, Group]) -> list[Group | torch.fx.Node]:
    """Depth-first order over nodes and groups; a group comes after everything its members need."""
    done: set[torch.fx.Node] = set()
    order: list[Group | torch.fx.Node] = []

    def visit(root: torch.fx.Node) -> None:
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if node in done:
                continue
            group = group_of.get(node)
            members = group.nodes if group is not None else [node]
            if ready:
                done.update(members)
                order.append(group if group is not None else node)
                continue
            stack.append((node, True))
            inside = set(members)
            needed = [s for m in members for s in m.all_input_nodes if s not in inside]
            stack.extend((source, False) for source in needed if source not in done)

    for node in graph.nodes:
        visit(node)
    return order

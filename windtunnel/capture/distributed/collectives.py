"""Collectives as they reach the dispatcher: recorded, and answered for tensors that hold values.

The answer is that of a world in which every rank is like this one: sums are multiplied, gathers repeat.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from windtunnel.capture.describe import OpInfo
from windtunnel.capture.distributed import groups, peers, real, reduce_ops, rendezvous, sizes, work
from windtunnel.capture.meta import Meta, contiguous, meta_of
from windtunnel.capture.tensor import VirtualTensor, fresh

if TYPE_CHECKING:
    from windtunnel.capture.state import State

_numbers = itertools.count(1)
_NOT_RECORDED = ("check_for_nan",)


def handlers() -> dict[Any, Callable[..., Any]]:
    """A handler for every operator of ``c10d`` and ``_c10d_functional``."""
    from torch.distributed import _functional_collectives  # noqa: F401 - it defines some of them

    found: dict[Any, Callable[..., Any]] = {}
    for qualified in torch._C._dispatch_get_all_op_names():
        namespace, _, name = qualified.partition("::")
        packet_name = name.split(".")[0]
        if namespace not in ("c10d", "_c10d_functional"):
            continue
        packet = getattr(getattr(torch.ops, namespace), packet_name)
        for overload in packet.overloads():
            handler = _eager if namespace == "c10d" else _functional
            found[getattr(packet, overload)] = handler
    return found


# ---- c10d: results are written into arguments ------------------------------------------------


def _eager(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = info.base_name.removeprefix("c10d.")
    if name in _NOT_RECORDED:
        return None
    given = {**dict(zip(info.names, args)), **kwargs}
    group = groups.unboxed(given["process_group"])
    outputs, inputs = _sides(given)
    sizes.check(name, inputs, outputs, group.size(), given)
    async_op = bool(given.get("async_op", True))
    on_card = any(isinstance(tensor, VirtualTensor) for tensor in (*inputs, *outputs))
    number = _record(state, name, group, inputs, outputs, given, async_op) if on_card else work.ON_THE_HOST
    arrive = None
    if name.startswith(("send", "recv")):
        arrive = peers.exchange(name, inputs, _peer(group, given), int(given.get("tag", 0)))
    else:
        _answer(name, group, outputs, inputs, given, reduce_ops.current())
    first = args[0] if isinstance(args[0], list) else [args[0]]
    handle = work.started(first, number, async_op and on_card, arrive)
    returns = len(info.func._schema.returns)
    if returns == 0:
        return None
    return handle if returns == 1 else (args[0], handle)


def install_for_host_tensors() -> None:
    """Host tensors reach no card: PyTorch's own kernels for them are answered here too, and not recorded."""
    for overload, handler in handlers().items():
        if handler is _eager and torch._C._dispatch_has_kernel_for_dispatch_key(overload.name(), "CPU"):
            _host_kernels.impl(overload.name().removeprefix("c10d::"), _of_host_tensors(overload), "CPU")


_host_kernels = torch.library.Library("c10d", "IMPL")


def _of_host_tensors(overload: Any) -> Callable[..., Any]:
    def answer(*args: Any, **kwargs: Any) -> Any:
        state = VirtualTensor.state
        return _eager(state, state.dispatch.info(overload), args, kwargs)

    return answer


def _sides(given: dict[str, Any]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Output and input tensors of an eager collective, flattened."""
    output_names = ("output_tensors", "output_tensor", "output_lists", "outputs", "output")
    input_names = ("input_tensors", "input_tensor", "input_list", "inputs", "input")
    outputs = [t for n in output_names if n in given for t in tree_leaves(given[n])]
    inputs = [t for n in input_names if n in given for t in tree_leaves(given[n])]
    in_place = [t for n in ("tensors", "tensor") if n in given for t in tree_leaves(given[n])]
    return outputs or in_place, inputs or in_place


def _record(
    state: State,
    name: str,
    group: Any,
    inputs: list[torch.Tensor],
    outputs: list[torch.Tensor],
    given: dict[str, Any],
    async_op: bool,
) -> int:
    number = next(_numbers)
    attributes: dict[str, Any] = {
        "group": groups.number_of(group),
        "work": number,
        "async_op": async_op,
    }
    if name.startswith(("send", "recv")):
        attributes["peer"] = _peer(group, given)
        attributes["tag"] = int(given.get("tag", 0))
    state.recorder.emit(f"c10d.{name}.default", _metas(inputs), _metas(outputs), **attributes)
    return number


def _peer(group: Any, given: dict[str, Any]) -> int:
    """The other rank of a send or receive, in the numbering of the world."""
    peer = given.get("dst", given.get("src"))
    return -1 if peer is None else torch.distributed.get_global_rank(group, int(peer))


def _metas(tensors: list[torch.Tensor]) -> list[Meta]:
    return [t.meta if isinstance(t, VirtualTensor) else meta_of(t) for t in tensors]


def _answer(
    name: str,
    group: Any,
    outputs: list[torch.Tensor],
    inputs: list[torch.Tensor],
    given: dict[str, Any],
    reduction: str,
) -> None:
    """What the outputs hold afterwards: what the ranks that are recorded bring, and of others one's own."""
    meeting = rendezvous.current()
    if meeting is not None and group.size() > 1:
        if name == "barrier":
            meeting.barrier(group)
            return
        decisive = outputs if name.startswith("scatter") else inputs  # what every rank has
        if real.travels(decisive, is_exchange=name.startswith(real.EXCHANGES)):
            if meeting.everybody:
                real.answer(name, group, outputs, inputs, given, reduction)
                return
            if not name.startswith("broadcast"):
                meeting.pass_by(group)
            elif _broadcast(meeting, group, name, outputs, given):
                return
        elif meeting.everybody:  # a barrier shows whether all have issued as many before it
            meeting.pass_by(group)
    factor = group.size() if reduction == "SUM" and given.get("reduce_op") is not None else 1
    _as_if_all_were_like_this(outputs, inputs, factor)


def _broadcast(
    meeting: rendezvous.Rendezvous,
    group: Any,
    name: str,
    tensors: list[torch.Tensor],
    given: dict[str, Any],
) -> bool:
    """Write what the root has, where it is recorded."""
    root = rendezvous.ranks_of(group)[int(given.get("root_rank", given.get("src", 0)))]
    found = meeting.root(group, root, name, real.host_values(tensors))
    if found is rendezvous.NOBODY_THERE:
        return False
    if found is None:
        real.forget_values(tensors)
    elif root != meeting.mailbox.rank:
        for tensor, values in zip(tensors, found, strict=True):
            real.write(tensor, values)
    return True


def _as_if_all_were_like_this(outputs: list[torch.Tensor], inputs: list[torch.Tensor], factor: int) -> None:
    """Outputs written from data-less inputs lose their values; ``factor``: how often a sum adds one's own."""
    valued = all(_values(t) is not None for t in inputs)
    for number, output in enumerate(outputs):
        target = _values(output)
        if not valued:
            if isinstance(output, VirtualTensor):
                output.store.valued = False
            continue
        source = _values(inputs[number % len(inputs)])
        if isinstance(output, VirtualTensor) and target is None and source is not None:
            real.hold_again(output)
            target = _values(output)
        if target is None or source is None:
            continue
        _fill(target, source, factor)


def _values(tensor: torch.Tensor) -> torch.Tensor | None:
    return tensor.host_values if isinstance(tensor, VirtualTensor) else tensor


def _fill(target: torch.Tensor, source: torch.Tensor, factor: int) -> None:
    flat = source.reshape(-1)
    if factor != 1:
        flat = flat * factor
    wanted = target.numel()
    if flat.numel() == 0 or wanted == 0:
        return
    repeats = -(-wanted // flat.numel())
    target.copy_(flat.repeat(repeats)[:wanted].view(target.shape))


# ---- functional: results are returned ----------------------------------------------------------


def _functional(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = info.base_name.removeprefix("_c10d_functional.")
    if name == "wait_tensor":
        work.finish(_pending.pop(id(args[0].store), -1) if isinstance(args[0], VirtualTensor) else -1)
        return args[0]
    if name == "_wrap_tensor_autograd":  # not a collective: the result of one, not waited for yet
        from torch.distributed._functional_collectives import AsyncCollectiveTensor

        return AsyncCollectiveTensor(args[0])
    given = {**dict(zip(info.names, args)), **kwargs}
    group = groups.by_name(given["group_name"])
    given["process_group"] = group
    inputs = tree_leaves(given.get("input", given.get("inputs", given.get("tensor"))))
    sizes.check(name, inputs, None, group.size(), given)
    outputs = _functional_outputs(name, given, inputs, group.size())
    if name in ("isend", "irecv"):
        name = name.removeprefix("i")
    number = _record(state, name, group, inputs, outputs, given, async_op=True)
    reduction = str(given.get("reduce_op", "sum")).upper()
    _answer(name, group, outputs, inputs, given, reduction)
    work.started(outputs, number, async_op=True)
    for output in outputs:
        if isinstance(output, VirtualTensor):
            _pending[id(output.store)] = number
    several = "coalesced" in name or isinstance(given.get("inputs"), list)
    return outputs if several else outputs[0]


_pending: dict[int, int] = {}  # storage of a result → collective that makes it


def _functional_outputs(
    name: str, given: dict[str, Any], inputs: list[torch.Tensor], size: int
) -> list[torch.Tensor]:
    if given.get("out") is not None:
        return [given["out"]]
    if name.endswith("_") or name in ("isend", "irecv"):
        return inputs
    shapes = [list(t.shape) for t in inputs]
    if name.startswith("all_gather_into_tensor"):
        for shape in shapes:
            shape[0] *= size
    elif name.startswith("reduce_scatter_tensor"):
        for shape in shapes:
            shape[0] //= size
    elif name == "all_to_all_single":
        splits = given["output_split_sizes"]
        shapes[0][0] = sum(splits) if splits else shapes[0][0]
    results: list[torch.Tensor] = []
    for tensor, shape in zip(inputs, shapes, strict=True):
        meta = contiguous(tensor.dtype, tuple(int(n) for n in shape))
        results.append(fresh(meta))
    return results

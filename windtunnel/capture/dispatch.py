"""Every operation on a card tensor passes here: record it, and make its result.

The first call of a kind runs PyTorch's own shape inference on meta tensors; later ones replay a plan. In
values mode, and for small integers and booleans always, the operation also runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from windtunnel.capture import custom, foreach, plans, widened
from windtunnel.capture.checks import check_call
from windtunnel.capture.describe import OpInfo, op_spec
from windtunnel.capture.keys import Call
from windtunnel.capture.meta import meta_of
from windtunnel.capture.tensor import (
    VirtualTensor,
    become,
    fresh,
    shape_only,
    view_of,
)
from windtunnel.program.program import NoticeKind

if TYPE_CHECKING:
    from windtunnel.capture.state import State

_FROM_THE_TOP = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
_WITHOUT_BODY = frozenset({"aten", "prim", "prims", "c10d", "_c10d_functional", "windtunnel"})

Handler = Callable[["State", OpInfo, tuple[Any, ...], dict[str, Any]], Any]


class Dispatcher:
    """Runs operations for one ``State``.

    Attributes:
        handlers: operators that shape inference alone cannot answer, by ``id`` of the overload
            (hashing an overload runs Python code).
        arithmetic: values-mode replacement of an operator's CPU kernel by the chip's arithmetic.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.handlers: dict[int, Handler] = {}
        self.arithmetic: dict[int, Callable[..., Any]] = {}
        self._infos: dict[int, OpInfo] = {}
        self._opaque: set[str] = set()  # operators of Python whose body did not run on the card
        # spec number, plan, whether the plan alone makes the results, also of arguments that hold values
        self._cache: dict[tuple[Any, ...], tuple[int, plans.Plan, bool]] = {}

    def info(self, func: Any) -> OpInfo:
        """Schema facts of ``func``."""
        info = self._infos.get(id(func))
        if info is None:
            info = self._infos[id(func)] = OpInfo(func)
        return info

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        handler = self.handlers.get(id(func))
        if handler is not None:
            return handler(self.state, self.info(func), args, kwargs)
        return self.default(func, args, kwargs)

    def default(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The ordinary path: cached plan, or shape inference, or the CPU where values exist."""
        call = Call(func, args, kwargs)
        entry = self._cache.get(call.key) if call.key is not None else None
        if entry is None:
            return self._miss(self.info(func), args, kwargs, call)
        spec, plan, by_shapes = entry
        self.state.recorder.op(spec)
        if call.any_valued and not by_shapes:
            info = self.info(func)
            if call.all_valued:
                return self._compute(info, args, kwargs)
            self._poison(info, args, kwargs)
        return plan(args, kwargs, call.tensors)

    def _miss(self, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any], call: Call) -> Any:
        body = None if info.namespace in _WITHOUT_BODY else custom.body_of(info.base_name)
        if body is not None and info.name not in self._opaque:
            found, out = self._inside(info, body, args, kwargs)
            if found:
                return out
        check_call(info, args, call)
        valued = call.all_valued and bool(call.tensors)
        recorder = self.state.recorder
        if valued:
            # The operation must stand before the allocations of its results.
            place = recorder.reserve()
            out = self._compute(info, args, kwargs)
        else:
            if info.dynamic:
                return self.state.policy.data_dependent(info, args, kwargs)
            self._poison(info, args, kwargs)
            place = recorder.reserve()
            out = None if info.returns_nothing else self._infer(info, args, kwargs)
        number = recorder.fill(place, op_spec(info, args, kwargs, out))
        if call.key is not None and info.cacheable:
            plan = plans.plan_of(info, args, kwargs, call.tensors, out)
            if plan is not None:
                self._cache[call.key] = (number, plan, plans.is_empty(info, out))
        return out

    def _inside(
        self, info: OpInfo, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bool, Any]:
        """Run an operator whose kernel is Python, as the card would, to record what is inside.

        A body that needs more than shapes, or does nothing that a card sees, makes it one opaque kernel.
        """
        recorder = self.state.recorder
        begin = len(recorder.events)
        try:
            # from the top, so that composite operators (matmul) come in the pieces that a card runs
            with torch.no_grad(), torch._C._ForceDispatchKeyGuard(*_FROM_THE_TOP):
                out = body(*args, **kwargs)
        except Exception as error:
            recorder.notice(NoticeKind.SKIPPED, f"{info.base_name} is one opaque kernel: {error!r:.80}")
        else:
            tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
            on_card = all(isinstance(leaf, VirtualTensor) for leaf in tensors)
            if on_card and any(event >= 0 for event in recorder.events[begin:]):
                return True, out
        recorder.forget(begin)
        self._opaque.add(info.name)
        return False, None

    def _poison(self, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Values overwritten by data-less data are gone, for every view."""
        for position, name in info.writes:
            value = args[position] if position < len(args) else kwargs.get(name)
            for tensor in tree_leaves(value):
                if isinstance(tensor, VirtualTensor):
                    tensor.store.valued = False

    def _infer(self, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        listed = foreach.results(info, args)
        if listed is not None:
            return listed
        shape = custom.shape_of(info.base_name)
        if shape is not None:
            return self._run(info, args, kwargs, shape_only, self.state.meta_device, shape)
        try:
            return self._run(info, args, kwargs, shape_only, self.state.meta_device)
        except NotImplementedError as error:
            raise custom.no_shape(info.base_name.replace(".", "::"), str(error)) from None

    def _compute(self, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def host(tensor: torch.Tensor) -> torch.Tensor:
            if isinstance(tensor, VirtualTensor):
                values = tensor.host_values
                assert values is not None
                if (values.is_conj() or values.is_neg()) and not keeps_bits:
                    plain = values.clone()
                    resolved.append((values, plain))
                    return plain
                return values
            return tensor

        # Below PyTorch's own dispatch nobody resolves lazy conjugation: kernels would read past the bit.
        keeps_bits = info.returns_view and info.base_name != "aten.view_as_real"
        resolved: list[tuple[torch.Tensor, torch.Tensor]] = []
        kernel = self.arithmetic.get(id(info.func))
        out = self._run(info, args, kwargs, host, self.state.host_device, kernel)
        if info.writes:
            for lazy, plain in resolved:
                lazy.copy_(plain)
        return out

    def _run(
        self,
        info: OpInfo,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        to_inner: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        kernel: Callable[..., Any] | None = None,
    ) -> Any:
        """Call the operator on plain tensors and dress its results as card tensors."""
        by_inner: dict[int, VirtualTensor] = {}
        by_storage: dict[int, VirtualTensor] = {}
        held: list[torch.Tensor] = []

        def strip(value: Any) -> Any:
            if isinstance(value, VirtualTensor):
                plain = to_inner(value)
                by_inner[id(plain)] = value
                by_storage.setdefault(plain.untyped_storage()._cdata, value)
                held.append(plain)
                return plain
            if isinstance(value, torch.Tensor):
                return to_inner(value) if value.dim() else value
            if isinstance(value, torch.device):
                return device
            return value

        plain_args, plain_kwargs = tree_map(strip, args), tree_map(strip, kwargs)
        plain_kwargs.pop("pin_memory", None)
        function = kernel or info.func
        try:
            out = function(*plain_args, **plain_kwargs)
        except NotImplementedError:  # the card has kernels for dtypes that the CPU lacks
            if device.type == "meta":
                raise
            out = widened.call(function, plain_args, plain_kwargs)
        if info.writes:
            self._follow(held, by_inner, by_storage)
            written = [args[p] if p < len(args) else kwargs.get(n) for p, n in info.writes]
            returns = info.func._schema.returns
            if not returns:
                return None
            if all(r.alias_info is not None for r in returns):
                return written[0] if len(returns) == 1 else tuple(written)
        aliases = info.returns_view or not info.cacheable

        def dress(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or isinstance(value, VirtualTensor):
                return value
            same = by_inner.get(id(value))
            if same is not None:
                return same
            base = by_storage.get(value.untyped_storage()._cdata) if aliases else None
            elem = value if self.state.keeps_values(value) else None
            if base is not None:
                return view_of(base, meta_of(value), elem)
            return fresh(meta_of(value), elem)

        return tree_map(dress, out)

    def _follow(
        self,
        held: list[torch.Tensor],
        by_inner: dict[int, VirtualTensor],
        by_storage: dict[int, VirtualTensor],
    ) -> None:
        """``set_``, ``resize_``, ``t_`` and a growing ``out=`` change a tensor: ours must follow."""
        for plain in held:
            tensor = by_inner[id(plain)]
            meta = meta_of(plain)
            if meta is tensor.meta:
                continue
            elem = plain if self.state.keeps_values(plain) else None
            base = by_storage.get(plain.untyped_storage()._cdata, tensor)
            if meta.storage_bytes <= base.store.nbytes and meta.dtype is base.meta.dtype:
                become(tensor, view_of(base, meta, elem))
            else:
                become(tensor, fresh(meta, elem))

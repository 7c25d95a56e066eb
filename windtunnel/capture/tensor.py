"""The card's tensor: real device, shape, dtype and a sized storage; data only where it is small or asked for.

A wrapper subclass rather than a ``dispatch_device`` one: PyTorch then asks nothing back in Python. Views
share the C++ storage and version counter of their base, so autograd sees what it sees on a real card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture import meta as metas
from windtunnel.capture.backend import DEVICE
from windtunnel.capture.meta import Meta
from windtunnel.capture.storage import Storage, register
from windtunnel.capture.unwinding import guarded

if TYPE_CHECKING:
    from windtunnel.capture.state import State

_make_wrapper: Any = torch.Tensor._make_wrapper_subclass
_make_subclass = torch.Tensor._make_subclass
_key = torch._C.DispatchKey
_AUTOGRAD_KEYS = (
    torch._C.DispatchKeySet(_key.Python)
    | torch._C.DispatchKeySet(_key.PythonTLSSnapshot)
    | torch._C.DispatchKeySet(_key.ADInplaceOrView)
    | torch._C.DispatchKeySet(_key.AutogradPrivateUse1)
)
_plain_data: Any = torch.Tensor.data


class VirtualTensor(torch.Tensor):
    """A tensor on the virtual card.

    Attributes:
        meta: interned shape, stride, offset and dtype.
        elem: CPU tensor with the values, or None. Only true while ``store.valued``: see ``host_values``.
        store: the memory, shared with every view.
    """

    meta: Meta
    elem: torch.Tensor | None
    store: Storage

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    state: State  # set once by capture.state: dispatch, ledger and policies of this process

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if len(types) > 1:  # wrappers around our tensors (results of collectives not waited for) go first
            return NotImplemented
        return guarded(cls.state.dispatch, func, args, kwargs or {})

    @property
    def host_values(self) -> torch.Tensor | None:
        """The CPU tensor with this tensor's values, or None when it is data-less."""
        return self.elem if self.elem is not None and self.store.valued else None

    @property
    def shown_device(self) -> str:
        """The device as messages name it; ``cuda_names`` answers for cards that are called ``cuda``."""
        return str(DEVICE)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        values = self.host_values
        if values is None:
            grad = ", requires_grad=True" if self.requires_grad else ""
            return f"tensor(..., device='{self.device}', size={tuple(self.shape)}, dtype={self.dtype}{grad})"
        text = repr(values)
        return f"{text[:-1]}, device='{self.device}')" if text.endswith(")") else text

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return self.item().__format__(spec) if self.dim() == 0 else repr(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # torch.load(weights_only=True) accepts this function, and it honours map_location
        host = self.detach().cpu()
        rebuild = torch._utils._rebuild_device_tensor_from_cpu_tensor
        return rebuild, (host, self.dtype, str(DEVICE), self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copy = self.detach().clone().requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                copy._is_param = True
            if self.grad is not None:
                copy.grad = self.grad.__deepcopy__(memo)
            memo[id(self)] = copy
        return memo[id(self)]

    # PyTorch's C++ versions of these refuse subclasses without data
    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {self.shown_device} device type tensor to numpy. Use Tensor.cpu() to copy "
            "the tensor to host memory first."
        )

    def data_ptr(self) -> int:
        return self.store.address() + self.meta.offset * self.meta.dtype.itemsize

    def untyped_storage(self) -> torch.UntypedStorage:
        untyped = super().untyped_storage()
        register(untyped, self.store)
        return untyped

    def __coerce_same_metadata_as_tangent__(self, meta: Any, expected_type: Any = None) -> Any:
        return self  # AOTAutograd asks

    @property
    def data(self) -> Any:
        return _plain_data.__get__(self)

    @data.setter
    def data(self, new: torch.Tensor) -> None:
        """C++ swaps the tensor's implementation; what we keep in Python must follow.

        A host tensor takes this one off the card, as scripts do that offload.
        """
        if not isinstance(new, VirtualTensor):
            swap_data(self, new.detach())
            return
        _plain_data.__set__(self, new)
        self.elem, self.meta, self.store = new.elem, new.meta, new.store


def fresh(meta: Meta, elem: torch.Tensor | None = None, store: Storage | None = None) -> VirtualTensor:
    """A new tensor, on a storage of its own unless one is given."""
    if elem is None and not meta.numel:  # all of its values are known: there are none
        elem = torch.empty_strided(meta.shape, meta.stride, dtype=meta.dtype)
    if store is None:
        store = Storage(meta.storage_bytes, VirtualTensor.state.ledger)
    tensor: VirtualTensor = _make_wrapper(
        VirtualTensor,
        meta.shape,
        strides=meta.stride,
        storage_offset=meta.offset,
        dtype=meta.dtype,
        device=DEVICE,
        storage_size=store.capacity,
    )
    tensor.meta, tensor.elem, tensor.store = meta, elem, store
    return tensor


def view_of(base: VirtualTensor, meta: Meta, elem: torch.Tensor | None = None) -> VirtualTensor:
    """A new tensor on the storage of ``base``."""
    if meta.dtype is not base.meta.dtype:
        return fresh(meta, elem, base.store)  # view(dtype): C++ storages of one dtype each
    # without the guard as_strided_ would bump the base's version: "modified by an inplace operation"
    with torch._C._ExcludeDispatchKeyGuard(_AUTOGRAD_KEYS):
        view: VirtualTensor = _make_subclass(VirtualTensor, base)
        if meta is not base.meta:
            view.as_strided_(meta.shape, meta.stride, meta.offset)
    view.meta, view.elem, view.store = meta, elem, base.store
    return view


def wrap(tensor: torch.Tensor) -> VirtualTensor:
    """A card tensor with a storage of its own, laid out like ``tensor`` and holding its values if any."""
    return fresh(metas.meta_of(tensor), None if tensor.is_meta else tensor)


def become(target: VirtualTensor, source: VirtualTensor) -> None:
    """Make ``target`` be ``source`` in place, as ``set_``, ``resize_`` and growing ``out=`` do."""
    with torch._C._ExcludeDispatchKeyGuard(_AUTOGRAD_KEYS):
        _plain_data.__set__(target, source)
    target.meta, target.elem, target.store = source.meta, source.elem, source.store


def swap_data(tensor: torch.Tensor, moved: torch.Tensor) -> None:
    """Make ``tensor`` the same object with the data of ``moved``, on the card or off it.

    PyTorch's setter refuses tensor types that differ. The gradient goes along: it can't be of the other type.
    """
    grad, tensor.grad = tensor.grad, None
    if isinstance(tensor, torch.nn.Parameter):
        moved = torch.nn.Parameter(moved, requires_grad=tensor.requires_grad)
    else:
        moved.requires_grad_(tensor.requires_grad)
    torch.utils.swap_tensors(tensor, moved)
    if grad is not None:
        tensor.grad = grad.to(tensor.device)


def inner(tensor: VirtualTensor) -> torch.Tensor:
    """What a kernel gets: the values, or a meta tensor made on demand."""
    values = tensor.host_values
    return metas.to_meta_tensor(tensor.meta) if values is None else values


def shape_only(tensor: torch.Tensor) -> torch.Tensor:
    """A meta tensor laid out like ``tensor``, card or not."""
    if isinstance(tensor, VirtualTensor):
        return metas.to_meta_tensor(tensor.meta)
    return tensor if tensor.is_meta else metas.to_meta_tensor(metas.meta_of(tensor))

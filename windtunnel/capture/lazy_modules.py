"""Parameters of lazy modules (``nn.LazyLinear``) on the card before their first call gives them a shape.

PyTorch keeps an empty tensor of the right device in them; one of the card's cannot be of two classes. So the empty
tensor stays on the host, and the class says that its shape, once known, is made on the card.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from windtunnel.capture.backend import DEVICE
from windtunnel.capture.tensor import VirtualTensor

_Lazy = UninitializedParameter | UninitializedBuffer


class OnTheCard:
    """What parameters and buffers without a shape have in common when they are on the card."""

    cls_to_become: Any

    @property
    def data(self) -> torch.Tensor:
        return torch.empty(0, dtype=_empty(self).dtype, device=DEVICE)

    @property
    def device(self) -> torch.device:  # ``cuda_names`` answers for cards that are called ``cuda``
        return DEVICE

    def materialize(self, shape: Any, device: Any = None, dtype: torch.dtype | None = None) -> None:
        """As PyTorch's own: the same object becomes a parameter of that shape, on the card unless told otherwise."""
        made = torch.empty(
            shape, dtype=dtype or _empty(self).dtype, device=DEVICE if device is None else device
        )
        self.__class__ = self.cls_to_become
        cast("Any", self).data = made


class CardParameter(OnTheCard, UninitializedParameter):  # type: ignore[override]
    """A parameter without a shape, on the card."""


class CardBuffer(OnTheCard, UninitializedBuffer):  # type: ignore[override]
    """A buffer without a shape, on the card."""


_CARD: dict[type, Any] = {UninitializedParameter: CardParameter, UninitializedBuffer: CardBuffer}
_HOST: dict[type, Any] = {card: host for host, card in _CARD.items()}


def _empty(lazy: Any) -> torch.Tensor:
    """The empty host tensor inside."""
    with torch._C.DisableTorchFunctionSubclass():
        found: torch.Tensor = torch.Tensor.detach(lazy)
        return found


def install() -> None:
    """Let lazy parameters be made on the card (``nn.LazyLinear(8, device="cuda")``), once per process."""
    for kind in _CARD:
        kind.__new__ = _made_anywhere(kind.__new__)  # type: ignore[method-assign]


def _made_anywhere(original: Any) -> Any:
    @functools.wraps(original)
    def new(cls: Any, *args: Any, device: Any = None, dtype: torch.dtype | None = None, **named: Any) -> Any:
        flag = args[:1]
        device, dtype = [*args[1:], *(None, None)][:2] if len(args) > 1 else (device, dtype)
        empty = torch.empty(0, device=device, dtype=dtype)
        on_card = isinstance(empty, VirtualTensor)
        where = "cpu" if on_card else empty.device
        made = original(_HOST.get(cls, cls), *flag, device=where, dtype=empty.dtype, **named)
        if on_card:
            made.__class__ = _CARD.get(cls, cls)
        return made

    return new


@contextmanager
def moved_apart(module: torch.nn.Module, convert: Callable[[Any], Any]) -> Iterator[None]:
    """Move ``module``'s own lazy parameters and buffers, and hide them from ``Module._apply`` meanwhile."""
    places: list[tuple[dict[str, Any], str, Any]] = []
    for own in (module._parameters, module._buffers):
        for name, tensor in own.items():
            if isinstance(tensor, _Lazy):
                places.append((cast("dict[str, Any]", own), name, tensor))
    for own, name, lazy in places:
        own[name] = None
        _move(lazy, convert)
    try:
        yield
    finally:
        for own, name, lazy in places:
            own[name] = lazy


def _move(lazy: Any, convert: Callable[[Any], Any]) -> None:
    found = convert(lazy.data.detach() if type(lazy) in _HOST else _empty(lazy))
    on_card = isinstance(found, VirtualTensor)
    host = torch.empty(0, dtype=found.dtype, device="cpu" if on_card else found.device)
    lazy.__class__ = _HOST.get(type(lazy), type(lazy))
    lazy.data = host
    if on_card:
        lazy.__class__ = _CARD[type(lazy)]

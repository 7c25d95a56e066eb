"""Moving a module to the card keeps its parameters the same objects, as on a real card.

PyTorch would make new parameters for a tensor type that it does not know: tied weights would part, and
optimizers made before ``.cuda()`` would hold the old ones. Swapping keeps identity; where it can't be done
(somebody holds a weak reference) ties at least are kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

Parameters = dict[int, list[tuple[torch.nn.Module, str]]]


def install() -> None:
    """Patch ``Module._apply``, once per process."""
    original: Any = torch.nn.Module._apply
    busy: list[bool] = []

    @functools.wraps(original)
    def apply(self: torch.nn.Module, fn: Callable[[Any], Any], recurse: bool = True) -> Any:
        if busy:  # a child of a module that is being moved
            return original(self, fn, recurse)
        busy.append(True)
        ties = _ties(self)
        try:
            return _swapping(original, self, fn, recurse)
        finally:
            busy.clear()
            _tie_again(ties)

    torch.nn.Module._apply = apply  # type: ignore[method-assign]


def _swapping(original: Any, module: torch.nn.Module, fn: Callable[[Any], Any], recurse: bool) -> Any:
    future: Any = torch.__future__
    before = future.get_swap_module_params_on_conversion()
    future.set_swap_module_params_on_conversion(True)
    try:
        return original(module, fn, recurse)
    except RuntimeError as error:
        if "Couldn't swap" not in str(error):
            raise
        future.set_swap_module_params_on_conversion(False)
        return original(module, fn, recurse)
    finally:
        future.set_swap_module_params_on_conversion(before)


def _ties(module: torch.nn.Module) -> Parameters:
    """Places of every parameter that stands in more than one."""
    places: Parameters = {}
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((child, name))
    return {number: found for number, found in places.items() if len(found) > 1}


def _tie_again(ties: Parameters) -> None:
    for places in ties.values():
        first = places[0][0]._parameters[places[0][1]]
        for module, name in places[1:]:
            module._parameters[name] = first

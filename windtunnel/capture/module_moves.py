"""Moving a module to the card keeps its parameters the same objects, as on a real card.

PyTorch would make new parameters for a tensor type that it does not know: tied weights would part, and
optimizers made before ``.cuda()`` would hold the old ones. Swapping keeps identity; where it can't be done
(somebody holds a weak reference, or garbage that is not collected yet holds the tensor) ties are kept and
optimizers are given the new parameters.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any

import torch

from windtunnel.capture import lazy_modules

Parameters = dict[int, list[tuple[torch.nn.Module, str]]]


def install() -> None:
    """Patch ``Module._apply``, once per process."""
    original: Any = torch.nn.Module._apply
    busy: list[bool] = []

    @functools.wraps(original)
    def apply(self: torch.nn.Module, fn: Callable[[Any], Any], recurse: bool = True) -> Any:
        if busy:  # a child of a module that is being moved
            with lazy_modules.moved_apart(self, fn):
                return original(self, fn, recurse)
        busy.append(True)
        ties, said = _ties(self), _attributes(self)
        try:
            with lazy_modules.moved_apart(self, fn):
                return _swapping(original, self, fn, recurse)
        finally:
            busy.clear()
            _tie_again(ties)
            _say_again(said)

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
        old = _places(module)
        result = original(module, fn, recurse)
        _follow(old)
        return result
    finally:
        future.set_swap_module_params_on_conversion(before)


def _places(module: torch.nn.Module) -> list[tuple[torch.nn.Module, str, torch.nn.Parameter]]:
    return [
        (child, name, parameter)
        for child in module.modules()
        for name, parameter in child._parameters.items()
        if parameter is not None
    ]


def _follow(old: list[tuple[torch.nn.Module, str, torch.nn.Parameter]]) -> None:
    """Give every optimizer the new parameters in place of the old, with their state."""
    new = {id(parameter): (parameter, child._parameters[name]) for child, name, parameter in reversed(old)}
    for thing in gc.get_objects():  # a rare path: who holds an optimizer is not known
        if not issubclass(type(thing), torch.optim.Optimizer):
            continue
        for group in thing.param_groups:
            group["params"] = [new[id(p)][1] if id(p) in new else p for p in group["params"]]
        for parameter in [key for key in thing.state if id(key) in new]:
            thing.state[new[id(parameter)][1]] = thing.state.pop(parameter)


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


def _attributes(module: torch.nn.Module) -> list[tuple[torch.nn.Module, str, dict[str, Any]]]:
    """What was written on parameters: Megatron-LM tells experts and split weights apart by it."""
    return [
        (child, name, dict(vars(parameter)))
        for child, name, parameter in _places(module)
        if getattr(parameter, "__dict__", None)
    ]


def _say_again(said: list[tuple[torch.nn.Module, str, dict[str, Any]]]) -> None:
    """Swapped tensors swap their attributes, too; on a real card a moved parameter keeps its own."""
    for module, name, attributes in said:
        parameter = module._parameters.get(name)
        for key, value in attributes.items():
            if parameter is not None and key not in vars(parameter):
                setattr(parameter, key, value)

"""Functions of PyTorch that pure Python backends cannot serve from C++, replaced once per process."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.optim import optimizer as torch_optimizer
from torch.utils._pytree import tree_leaves, tree_map

from windtunnel.capture import neutral_names, registrations
from windtunnel.capture.backend import BACKEND, DEVICE
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program.program import NoticeKind


def install() -> None:
    """Replace them all."""
    _patch_load()
    _patch_generator()
    neutral_names.install()
    _patch_backward()
    _patch_autocast_cache()
    _patch_foreach()
    _patch_trace()
    _patch_flash_choice()
    # TransformerEncoder's inference shortcut packs padded batches into nested tensors, which the card lacks
    torch.backends.mha.set_fastpath_enabled(False)


def _patch_flash_choice() -> None:
    """Any version of FlashAttention that a script picks: the card's own kernel is what runs."""
    import torch.nn.attention as attention

    module: Any = attention
    module.activate_flash_attention_impl = lambda implementation: None


def _patch_load() -> None:
    """``torch.load(map_location="musa")``: C++ would crash the process; load on the CPU and move."""
    load = torch.load

    def load_on_card(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        named = isinstance(map_location, (str, torch.device))
        if named and torch.device(map_location).type == BACKEND:
            return tree_map(_to_card, load(f, "cpu", *args, **kwargs))
        return load(f, map_location, *args, **kwargs)

    torch.load = load_on_card


def _to_card(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and not isinstance(value, VirtualTensor):
        moved = value.to(DEVICE)
        return torch.nn.Parameter(moved) if isinstance(value, torch.nn.Parameter) else moved
    return value


def _patch_generator() -> None:
    """``torch.Generator(device="musa")`` is a CPU generator: values are drawn on the CPU."""
    generator = torch.Generator

    class GeneratorMeta(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, generator)

        def __call__(cls, device: Any = "cpu") -> torch.Generator:
            kind = torch.device(device).type
            return generator("cpu" if kind == BACKEND else device)

    class Generator(metaclass=GeneratorMeta):
        """Stands for ``torch.Generator``."""

    torch.Generator = Generator  # type: ignore[misc,assignment]


def _patch_backward() -> None:
    """Notice where a backward pass ends: a step without an optimizer ends there."""
    backward = torch.autograd.backward

    def noticed(*args: Any, **kwargs: Any) -> None:
        backward(*args, **kwargs)
        _on_backward_end()

    torch.autograd.backward = noticed


def _on_backward_end() -> None:
    state = VirtualTensor.state
    if state.on_backward_end is not None:
        state.on_backward_end()


def _patch_autocast_cache() -> None:
    clear = torch.clear_autocast_cache

    def clear_both() -> None:
        clear()
        registrations.clear_autocast_cache()

    torch.clear_autocast_cache = clear_both


def _patch_foreach() -> None:
    """Optimizers choose their foreach kernels for known tensor types only."""
    types: Any = torch_optimizer._foreach_supported_types
    types.append(VirtualTensor)


def _patch_trace() -> None:
    """``torch.jit.trace`` of what lives on the card gives it back untraced: it runs as it is, and is listed.

    Tracing turns sizes into tensors inside every operation; the card needs them as numbers.
    """
    trace = torch.jit.trace

    @functools.wraps(trace)
    def untraced(func: Any, example_inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        given = (example_inputs, kwargs, *(func.parameters() if isinstance(func, torch.nn.Module) else ()))
        if not any(isinstance(leaf, VirtualTensor) for leaf in tree_leaves(given)):
            return trace(func, example_inputs, *args, **kwargs)
        what = "torch.jit.trace is left out: the module runs as it is"
        VirtualTensor.state.recorder.notice(NoticeKind.SKIPPED, what)
        return func

    torch.jit.trace = untraced

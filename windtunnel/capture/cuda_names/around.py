"""Functions outside ``torch.cuda`` that take or answer a CUDA device: loading, generators, defaults."""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch
from torch.utils import _device

from windtunnel.capture.backend import DEVICE
from windtunnel.capture.cuda_names.movement import Translate, translator
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence, user_code
from windtunnel.capture.module import module as card

_device_type: Any = vars(torch.device)["type"].__get__


def install(patches: Patches, pretence: Pretence) -> None:
    """Wrap them."""
    translate = translator(pretence)
    _wrap_load(patches, translate)
    _wrap_generator(patches, translate)
    _wrap_accelerator(patches, pretence)
    _wrap_default_device(patches, pretence, translate)
    _wrap_profiler(patches)


def _wrap_load(patches: Patches, translate: Translate) -> None:
    load = torch.load

    @functools.wraps(load)
    def load_(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        if callable(map_location):
            map_location = _answer_of(map_location)
        if isinstance(map_location, dict):  # {"cuda:0": "cuda:1"}: there is one card
            map_location = next((DEVICE for to in map_location.values() if _is_card(to)), "cpu")
        return load(f, translate(map_location), *args, **kwargs)

    patches.set(torch, "load", load_)


def _answer_of(map_location: Any) -> Any:
    """Where a function sends storages: asked once, with an empty one of the card."""
    try:
        answer = map_location(torch.UntypedStorage(0), "cuda:0")
    except RuntimeError:  # `storage.cuda()`: storages of a Python device cannot be made
        return DEVICE
    return DEVICE if answer is None else answer.device


def _is_card(device: Any) -> bool:
    return isinstance(device, int) or _device_type(torch.device(device)) != "cpu"


def _wrap_generator(patches: Patches, translate: Translate) -> None:
    generator: Any = torch.Generator

    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, generator)

        def __call__(cls, device: Any = "cpu") -> Any:
            return generator(translate(device))

    patches.set(torch, "Generator", Meta("Generator", (), {"__module__": "torch"}))


def _wrap_accelerator(patches: Patches, pretence: Pretence) -> None:
    """On an NVIDIA card the accelerator is called ``cuda``; elsewhere its name is the card's own."""
    if not pretence.native:
        return
    current = torch.accelerator.current_accelerator

    @functools.wraps(current)
    def current_accelerator(check_available: bool = False) -> Any:
        if user_code(sys._getframe(1).f_code):
            return torch.device("cuda")
        return current(check_available)

    patches.set(torch.accelerator, "current_accelerator", current_accelerator)


def _wrap_default_device(patches: Patches, pretence: Pretence, translate: Translate) -> None:
    """``with torch.device("cuda")`` and ``torch.set_default_device("cuda")``."""
    context: Any = _device.DeviceContext
    start = context.__init__

    @functools.wraps(start)
    def init(self: Any, device: Any) -> None:
        start(self, translate(device))

    patches.set(context, "__init__", init)
    default = torch.get_default_device

    @functools.wraps(default)
    def get_default_device() -> torch.device:
        device = default()
        on_card = _device_type(device) == DEVICE.type
        return torch.device("cuda", card.current_device()) if on_card and pretence.speaks_cuda else device

    patches.set(torch, "get_default_device", get_default_device)


def _wrap_profiler(patches: Patches) -> None:
    """``ProfilerActivity.CUDA`` asks for kernels that a CPU build cannot trace: only host events remain."""
    import torch.profiler as profiler

    cuda, cpu = profiler.ProfilerActivity.CUDA, profiler.ProfilerActivity.CPU
    for cls in (profiler.profile, profiler.profiler._KinetoProfile):
        start = vars(cls)["__init__"]

        def init(self: Any, *args: Any, _start: Any = start, **kwargs: Any) -> None:
            activities = kwargs.get("activities")
            if activities is not None and cuda in activities:
                kwargs["activities"] = [a for a in activities if a is not cuda] or [cpu]
            _start(self, *args, **kwargs)

        patches.set(cls, "__init__", functools.wraps(start)(init))

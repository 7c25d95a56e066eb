"""``torch.cuda.Stream``, ``Event``, ``ExternalStream``: the card's classes under CUDA names."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.cuda.streams

from windtunnel.capture import streams
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence, user_code


def install(patches: Patches, pretence: Pretence) -> None:
    """Replace the classes in ``torch.cuda`` and ``torch.cuda.streams``."""
    for name, base in (
        ("Stream", streams.Stream),
        ("Event", streams.Event),
        ("ExternalStream", streams.Stream),
    ):
        named = _named(f"torch.cuda.{name}", base, pretence)
        patches.set(torch.cuda, name, named)
        patches.set(torch.cuda.streams, name, named)

    class StreamContext(streams.on_stream):
        """``with torch.cuda.stream(s):``"""

    patches.set(torch.cuda, "StreamContext", StreamContext)
    patches.set(
        torch.cuda, "stream", pretence.function("torch.cuda.stream", lambda stream: StreamContext(stream))
    )
    external = pretence.function("torch.cuda.get_stream_from_external", lambda *_: streams.Stream())
    patches.set(torch.cuda, "get_stream_from_external", external)


def _named(title: str, base: Any, pretence: Pretence) -> Any:
    """A subclass that notes its construction; every stream of the card counts as an instance."""

    class Meta(type(base)):  # type: ignore[misc]
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, base)

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if user_code(sys._getframe(1).f_code):
            pretence.name(title)
        return base.__new__(cls, *args, **kwargs)

    name = title.rpartition(".")[2]
    return Meta(name, (base,), {"__new__": new, "__module__": "torch.cuda"})

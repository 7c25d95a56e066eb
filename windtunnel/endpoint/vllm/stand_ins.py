"""What vLLM expects of the machine it runs on and virtual cards do not have."""

from __future__ import annotations

from typing import Any

import torch

_library: Any = None


def install() -> None:
    """Make shutdown and imports work without an accelerator; once per process."""
    global _library
    for name in ("empty_cache", "empty_host_cache"):
        setattr(torch.accelerator, name, _nothing)  # they raise where no accelerator is
    if _library is None and not hasattr(torch.ops.torchvision, "nms"):
        # torchvision's wheel is linked to CUDA; importing it needs only the schemas of these two
        _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _nothing() -> None:
    return None

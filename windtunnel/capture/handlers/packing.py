"""Packing padded sequences: lengths live on the host, so the shape of the result is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.describe import OpInfo

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten


def _pack(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The steps of all sequences one after the other, shape (sum of lengths, ...), and how many take part in
    each, on the host."""
    padded, lengths, batch_first = args
    if bool((lengths <= 0).any()) or bool((lengths[1:] > lengths[:-1]).any()):
        raise RuntimeError("`lengths` must be above zero and sorted in decreasing order")
    sizes = (lengths[None, :] > torch.arange(int(lengths[0]))[:, None]).sum(1)
    steps = padded.transpose(0, 1) if batch_first else padded
    return torch.cat([steps[step, :size] for step, size in enumerate(sizes.tolist())]), sizes


HANDLERS = {aten._pack_padded_sequence.default: _pack}

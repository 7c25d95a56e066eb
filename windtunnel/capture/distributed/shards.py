"""FSDP2 cuts a parameter into as many pieces as there are ranks, and keeps one: the others are not made here.

PyTorch makes a view of each piece and an empty tensor for each rank beyond the last, of every parameter. On
10,240 ranks that is most of what a recording would do, before the first step, and none of it reaches the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch

from windtunnel.capture.after_import import call


def install() -> None:
    """FSDP2 gets pieces that are cut when they are looked at."""
    call("torch.distributed.fsdp._fully_shard._fsdp_param", _cut_on_demand)


def _cut_on_demand(fsdp_param: Any) -> None:
    if hasattr(fsdp_param, "_chunk_with_empty"):  # private to PyTorch: without it, it is only slower
        fsdp_param._chunk_with_empty = Pieces


class Pieces(Sequence[torch.Tensor]):
    """What ``torch.chunk(tensor, count, dim)`` gives, and empty tensors up to ``count``."""

    def __init__(self, tensor: torch.Tensor, num_chunks: int, dim: int) -> None:
        self.tensor = tensor
        self.pieces = num_chunks
        self.dim = dim
        self.length = max(1, -(-tensor.size(dim) // num_chunks))

    def __len__(self) -> int:
        return self.pieces

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...
    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.pieces))]
        number = range(self.pieces)[index]
        begin = number * self.length
        if begin >= self.tensor.size(self.dim) and number:
            return self.tensor.new_empty(0)
        rest = self.tensor.size(self.dim) - begin
        return self.tensor.narrow(self.dim, begin, min(self.length, rest))

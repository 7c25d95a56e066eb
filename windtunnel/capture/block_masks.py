"""``create_block_mask`` on the card: block masks keep their values at any length.

PyTorch evaluates ``mask_mod`` for every pair of positions, compiled or not. That is more booleans than a
shadow card keeps, and what matters afterwards is only which blocks are empty, partial or full. So the mask is
evaluated here in slices of block rows; above ``EXACT_PAIRS`` pairs on a grid of ``GRID`` positions a block,
its edges included, which is noted. A compiled ``create_block_mask`` is recorded as the one kernel it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from windtunnel.capture.tensor import VirtualTensor, wrap
from windtunnel.program.op import OpSpec
from windtunnel.program.program import NoticeKind

SMALL_INTEGERS = 1 << 22
"""Pairs evaluated at once: what a shadow card keeps the values of."""

EXACT_PAIRS = 1 << 27
GRID = 8
UNCOMPILED = "_windtunnel_fused"
"""Attribute of a function that ``torch.compile`` replaces by what it holds, instead of tracing it."""


def patch(module: ModuleType) -> None:
    """Replace ``create_block_mask`` of ``torch.nn.attention.flex_attention``."""
    flex: Any = module
    original = flex.create_block_mask

    def create(fused: bool, *args: Any, **kwargs: Any) -> Any:
        question = _bound(flex, original, *args, **kwargs)
        if question is None or not (fused or _too_large(question)):
            return original(*args, **kwargs)
        if not fused:
            original(*args, **kwargs)  # what an eager card launches and allocates
        found = _with_values(flex, question)
        if found is None:
            return original(*args, **kwargs)
        if fused:
            _record(found)
        return found

    replaced = functools.wraps(original)(functools.partial(create, False))
    setattr(replaced, UNCOMPILED, functools.wraps(original)(functools.partial(create, True)))
    flex.create_block_mask = replaced


class _Question:
    """The arguments of one call, by name."""

    def __init__(self, arguments: dict[str, Any], default_block: int) -> None:
        self.mask_mod: Callable[..., Any] = arguments["mask_mod"]
        self.batch, self.heads = arguments["B"] or 1, arguments["H"] or 1
        self.lengths = int(arguments["Q_LEN"]), int(arguments["KV_LEN"])
        self.device = arguments.get("device")
        block = arguments.get("BLOCK_SIZE", default_block)
        self.block = (block, block) if isinstance(block, int) else (int(block[0]), int(block[1]))
        self.separate = bool(arguments.get("separate_full_blocks", True))

    @property
    def pairs(self) -> int:
        """Pairs of positions that the mask decides about."""
        return int(self.batch * self.heads * self.lengths[0] * self.lengths[1])


def _bound(flex: Any, original: Any, *args: Any, **kwargs: Any) -> _Question | None:
    """The call, if it is for the card and of the plain kind."""
    import inspect

    bound = inspect.signature(original).bind(*args, **kwargs).arguments
    if bound.get("compute_dq_write_order"):
        return None
    question = _Question(bound, flex._DEFAULT_SPARSE_BLOCK_SIZE)
    with _paused():
        probe = torch.arange(0, 1, device=question.device or torch.accelerator.current_accelerator())
    return question if isinstance(probe, VirtualTensor) else None


def _too_large(question: _Question) -> bool:
    return not VirtualTensor.state.keeps(torch.bool, question.pairs)


def _with_values(flex: Any, question: _Question) -> Any:
    """The block mask, or None where ``mask_mod`` depends on data that the card does not have."""
    with _paused():
        tables = _block_table(flex, question)
        if tables is None:
            return None
        some, whole = tables
        partial = (some & ~whole) if question.separate else some
        dense = [wrap(partial.to(torch.int8)), wrap(whole.to(torch.int8)) if question.separate else None]
        return flex._create_sparse_block_from_block_mask(
            tuple(dense), question.mask_mod, question.lengths, *question.block
        )


def _block_table(flex: Any, question: _Question) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(batch, heads, query blocks, key blocks) twice: whether any, and whether all pairs are let through."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

    exact = question.pairs <= EXACT_PAIRS
    if not exact:
        VirtualTensor.state.recorder.notice(
            NoticeKind.SKIPPED, f"a block mask of {question.pairs:,} pairs was looked at on a grid"
        )
    rows, row_points = _points(question.lengths[0], question.block[0], exact)
    columns, column_points = _points(question.lengths[1], question.block[1], exact)
    step = max(row_points, SMALL_INTEGERS // len(columns) // row_points * row_points)
    mask = flex._vmap_for_bhqkv(question.mask_mod, prefix=())
    heads, keys = wrap(torch.arange(question.heads)), wrap(columns.clamp(max=question.lengths[1] - 1))
    shown: list[torch.Tensor] = []
    with TransformGetItemToIndex():
        for batch in range(question.batch):
            pieces = []
            for begin in range(0, len(rows), step):
                queries = wrap(rows[begin : begin + step].clamp(max=question.lengths[0] - 1))
                answer = mask(wrap(torch.tensor([batch])), heads, queries, keys)
                values = answer.host_values if isinstance(answer, VirtualTensor) else answer
                if values is None:
                    return None
                inside = (rows[begin : begin + step] < question.lengths[0])[:, None]
                values = values & inside & (columns < question.lengths[1])
                blocks = values[0].unflatten(-2, (-1, row_points)).unflatten(-1, (-1, column_points))
                pieces.append(torch.stack([blocks.any(-1).any(-2), blocks.all(-1).all(-2)]))
            shown.append(torch.cat(pieces, dim=2))
    table = torch.stack(shown, dim=1)
    return table[0], table[1]


def _points(length: int, block: int, exact: bool) -> tuple[torch.Tensor, int]:
    """Positions to look at, block by block, and how many a block has."""
    blocks = -(-length // block)
    offsets = torch.arange(block) if exact else torch.linspace(0, block - 1, min(GRID, block)).round().long()
    return (torch.arange(blocks)[:, None] * block + offsets).flatten(), len(offsets)


def _record(mask: Any) -> None:
    """One kernel that writes the tables of the block mask."""
    recorder = VirtualTensor.state.recorder
    place = recorder.reserve()
    names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
    written = [getattr(mask, name) for name in names]
    outputs = tuple(tensor.meta.spec for tensor in written if isinstance(tensor, VirtualTensor))
    spec = OpSpec("windtunnel.fused", (), outputs, (("ops", 4), ("names", ("create_block_mask",))))
    recorder.fill(place, spec)


class _paused:
    """Nothing is recorded inside."""

    def __enter__(self) -> None:
        recorder = VirtualTensor.state.recorder
        self._before, recorder.paused = recorder.paused, True

    def __exit__(self, *_: Any) -> None:
        VirtualTensor.state.recorder.paused = self._before

"""Operations over lists of tensors: foreach arithmetic and fused optimizers."""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel.program.count.shapes import (
    ARITHMETIC,
    SPECIAL,
    Counter,
    is_in_place,
    names,
    nbytes,
    number,
    overload,
    streaming,
    written_bytes,
)
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.work import Family, Work

# ATen/native/cuda/MultiTensorApply.cuh: elements of a chunk, chunks and tensors of one launch by list count
CHUNK_ELEMENTS = 65_536
CHUNKS_PER_LAUNCH = 320
TENSORS_PER_LAUNCH = (110, 64, 48, 36, 30)

_SPECIAL_FOREACH = frozenset(
    names("""
    acos asin atan cos cosh erf erfc exp expm1 lgamma log log10 log1p log2 pow reciprocal rsqrt sigmoid
    sin sinh sqrt tan tanh norm powsum
    """)
)
_ADAM_OPS = 12 * ARITHMETIC + SPECIAL  # two moments, bias corrections, root, division, decay


def launches(tensors: Sequence[TensorSpec], lists: int) -> int:
    """Kernels that PyTorch's multi-tensor apply launches for a list of tensors."""
    limit = TENSORS_PER_LAUNCH[min(lists, len(TENSORS_PER_LAUNCH)) - 1]
    count = held = chunks = 0
    for tensor in tensors:
        remaining = -(-tensor.numel // CHUNK_ELEMENTS)
        held += 1
        while remaining:
            taken = min(remaining, CHUNKS_PER_LAUNCH - chunks)
            chunks += taken
            remaining -= taken
            if chunks == CHUNKS_PER_LAUNCH:
                count, chunks, held = count + 1, 0, 1 if remaining else 0
        if held >= limit:
            count, chunks, held = count + 1, 0, 0
    return max(1, count + (1 if chunks else 0))


def _lists_of(name: str, spec: OpSpec) -> int:
    if name in ("addcdiv", "addcmul"):
        return 3
    if name == "lerp":
        return 3 if overload(spec).startswith("List") else 2
    if name in ("copy", "mm"):
        return 2
    return 2 if overload(spec).startswith("List") else 1


def foreach(spec: OpSpec) -> Work:
    """Any ``aten._foreach_*`` but zeroing and copying, which are counted in ``movement``."""
    name = spec.base_name.removeprefix("aten._foreach_").rstrip("_")
    lists = _lists_of(name, spec)
    count = len(spec.inputs) // lists if overload(spec) != "Tensor" else len(spec.inputs) - 1
    own = spec.inputs[: max(1, count)]
    elements = float(sum(tensor.numel for tensor in own))
    ops = SPECIAL if name in _SPECIAL_FOREACH else ARITHMETIC
    written = nbytes(own) if is_in_place(spec) else written_bytes(spec)
    return streaming(
        spec,
        Family.OPTIMIZER,
        ops * elements,
        bytes_written=written,
        kernels=launches(own, lists + (0 if is_in_place(spec) else 1)),
        variant="foreach",
        dims=(("elements", elements), ("tensors", float(len(own)))),
    )


def _fused(spec: OpSpec, lists: int, written: Sequence[int], ops: float) -> Work:
    """``lists`` parallel lists of tensors, of which those numbered ``written`` are updated."""
    count = len(spec.inputs) // lists
    parts = [spec.inputs[i * count : (i + 1) * count] for i in range(lists)]
    elements = float(sum(tensor.numel for tensor in parts[0]))
    return streaming(
        spec,
        Family.OPTIMIZER,
        ops * elements,
        bytes_written=sum(nbytes(parts[i]) for i in written),
        kernels=launches(parts[0], lists),
        variant="fused",
        dims=(("elements", elements), ("tensors", float(count))),
    )


def _fused_adam(spec: OpSpec) -> Work:
    # self, grads, exp_avgs, exp_avg_sqs, [max_exp_avg_sqs,] state_steps
    if spec.attribute("amsgrad") is True:
        return _fused(spec, 6, (0, 2, 3, 4), _ADAM_OPS + ARITHMETIC)
    return _fused(spec, 5, (0, 2, 3), _ADAM_OPS)


def _fused_sgd(spec: OpSpec) -> Work:
    if number(spec, "momentum"):  # self, grads, momentum buffers
        return _fused(spec, 3, (0, 2), 5 * ARITHMETIC)
    return _fused(spec, 2, (0,), 3 * ARITHMETIC)


def _fused_adagrad(spec: OpSpec) -> Work:
    return _fused(spec, 4, (0, 2), 6 * ARITHMETIC + SPECIAL)  # self, grads, state_sums, state_steps


FOREACH_PREFIX = "_foreach_"

COUNTERS: dict[str, Counter] = {
    "_fused_adam": _fused_adam,
    "_fused_adamw": _fused_adam,
    "_fused_sgd": _fused_sgd,
    "_fused_adagrad": _fused_adagrad,
}

"""FLOPs, bytes and dimensions of every operation, computed in this one place.

``work_of`` looks an operation up by its base name; each family has its own file. What nobody counts is
``Family.UNKNOWN``: priced from the bytes of its arguments and results, and shown as assumed. No PyTorch.
"""

from __future__ import annotations

from windtunnel.program import marks
from windtunnel.program.count import (
    attention,
    convolution,
    indexing,
    matmul,
    movement,
    normalisation,
    optimizer,
    pointwise,
    rowwise,
    sharding,
    transforms,
    virtual_layers,
    virtual_mixers,
)
from windtunnel.program.count.shapes import Counter, nbytes, streaming
from windtunnel.program.op import OpSpec
from windtunnel.program.work import Family, Work

_ATEN: dict[str, Counter] = {
    **pointwise.COUNTERS,
    **rowwise.COUNTERS,
    **normalisation.COUNTERS,
    **indexing.COUNTERS,
    **transforms.COUNTERS,
    **movement.COUNTERS,
    **optimizer.COUNTERS,
    **convolution.COUNTERS,
    **attention.COUNTERS,
    **matmul.COUNTERS,
}
_VIRTUAL: dict[str, Counter] = {**virtual_layers.COUNTERS, **virtual_mixers.COUNTERS, **sharding.COUNTERS}
# operations of other namespaces that are an aten operation by another name
_SYNONYMS = {
    "prims.convert_element_type": "_to_copy",
    "prims.iota": "arange",
    "prims.device_put": "_to_copy",
    "prim.device": "get_device",
    "transformers.grouped_mm_fallback": "_grouped_mm",
    "transformers.grouped_mm_fallback_backward": "_grouped_mm_backward",
    "torch_attn._varlen_attn": "_flash_attention_forward",
    "torch_attn._varlen_attn_backward": "_flash_attention_backward",
}
_HOST_ONLY = ("profiler.",)
_COLLECTIVES = ("c10d.", "_c10d_functional.", "_c10d_functional_autograd.", "symm_mem.")


def work_of(spec: OpSpec) -> Work:
    """What one operation asks of a chip.

    FLOPs of the operations that ``torch.utils.flop_counter`` knows are equal to its count. Bytes are the
    least traffic: arguments read once, results written once, gathers only the rows they take.

    Raises:
        WindtunnelError: E520, a dtype whose size is not known.
    """
    base = spec.base_name
    if base in marks.HOST_MARKS or base.startswith(_HOST_ONLY):
        return Work(family=Family.HOST, kernels=0, bytes_read=nbytes(spec.inputs))
    if base.startswith(_COLLECTIVES):
        return _collective(spec)
    counter = _counter(base)
    if counter is None:
        return streaming(spec, Family.UNKNOWN)
    return counter(spec)


def is_counted(name: str) -> bool:
    """Whether an operation has a counter of its own."""
    base = ".".join(name.split(".")[:2])
    known = base in marks.HOST_MARKS or base.startswith((*_COLLECTIVES, *_HOST_ONLY))
    return known or _counter(base) is not None


def _counter(base: str) -> Counter | None:
    if base in _VIRTUAL:
        return _VIRTUAL[base]
    if base in _SYNONYMS:
        return _ATEN[_SYNONYMS[base]]
    if not base.startswith("aten."):
        return None
    name = base.removeprefix("aten.")
    counter = _ATEN.get(name) or _ATEN.get(name.removesuffix("_"))
    if counter is None and name.startswith(optimizer.FOREACH_PREFIX):
        return optimizer.foreach
    if counter is None and name.startswith(pointwise.SPECIAL_PREFIX):
        return pointwise.special
    return counter


def _collective(spec: OpSpec) -> Work:
    sent = nbytes(spec.inputs)
    waits = spec.base_name.endswith(("wait_tensor", "barrier", "monitored_barrier"))
    return Work(
        family=Family.COLLECTIVE,
        bytes_read=0.0 if waits else sent,
        bytes_written=0.0 if waits else nbytes(spec.outputs or spec.inputs),
        kernels=0 if waits else 1,
        variant=spec.base_name.split(".")[1].rstrip("_"),
    )

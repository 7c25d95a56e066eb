"""Copies of fully sharded data parallel: what lies between parameters and the flat buffers of its collectives.

PyTorch's FSDP2 records them as operators of its own (torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py).
"""

from __future__ import annotations

from windtunnel.program.count.shapes import Counter, nbytes, streaming
from windtunnel.program.op import OpSpec
from windtunnel.program.work import Family, Work

COPY_IN, COPY_OUT, CHUNK_CAT = (
    "fsdp.all_gather_copy_in",
    "fsdp.split_with_sizes_copy",
    "fsdp.chunk_cat",
)


def _copy_in(spec: OpSpec) -> Work:
    """Shards into this rank's part of the gathered buffer, which comes last."""
    shards = nbytes(spec.inputs[:-1])
    return streaming(spec, Family.COPY, bytes_read=shards, bytes_written=shards)


def _copy_out(spec: OpSpec) -> Work:
    """The gathered buffer into whole parameters."""
    return streaming(
        spec, Family.COPY, bytes_read=nbytes(spec.inputs[:1]), bytes_written=nbytes(spec.inputs[1:])
    )


def _chunk_cat(spec: OpSpec) -> Work:
    """Gradients, cast, into the buffer that is reduced, which comes last."""
    return streaming(
        spec, Family.COPY, bytes_read=nbytes(spec.inputs[:-1]), bytes_written=nbytes(spec.inputs[-1:])
    )


COUNTERS: dict[str, Counter] = {COPY_IN: _copy_in, COPY_OUT: _copy_out, CHUNK_CAT: _chunk_cat}

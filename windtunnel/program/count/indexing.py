"""Gathers and scatters: a gather reads the rows it takes, a scatter writes the rows it is given."""

from __future__ import annotations

from windtunnel.program.count.shapes import (
    ARITHMETIC,
    Counter,
    arguments,
    first,
    is_in_place,
    last_dim,
    nbytes,
    result,
    rows_columns,
    rows_of,
    streaming,
    table,
    written_bytes,
)
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.work import Family, Work


def gather(spec: OpSpec, *, kernels: int = 1) -> Work:
    """As many elements read from the table as there are results, and the indices."""
    out = result(spec)
    columns = last_dim(out) if len(out.shape) > 1 else 1
    indices = arguments(spec)[1:]
    return streaming(
        spec,
        Family.EMBEDDING,
        bytes_read=nbytes((out,)) + nbytes(indices),
        kernels=kernels,
        dims=(*rows_columns(rows_of(out, columns), columns), ("table_bytes", nbytes(arguments(spec)[:1]))),
    )


def scatter(spec: OpSpec, values: TensorSpec, indices: tuple[TensorSpec, ...], *, adds: bool) -> Work:
    """Writes ``values`` at ``indices``; out of place it first copies the table; adding also reads."""
    moved = nbytes((values,))
    copied = 0.0 if is_in_place(spec) else written_bytes(spec)
    columns = last_dim(values) if len(values.shape) > 1 else 1
    return streaming(
        spec,
        Family.SCATTER,
        ARITHMETIC * values.numel if adds else 0.0,
        bytes_read=moved * (2 if adds else 1) + nbytes(indices) + copied,
        bytes_written=moved + copied,
        kernels=2 if copied else 1,
        variant="add" if adds else "",
        dims=(*rows_columns(rows_of(values, columns), columns), ("table_bytes", nbytes(arguments(spec)[:1]))),
    )


def _gather(spec: OpSpec) -> Work:
    return gather(spec)


def _adds(spec: OpSpec) -> bool:
    reduced = any(word in spec.base_name for word in ("add", "reduce", "accumulate"))
    return reduced or spec.attribute("accumulate") is True or spec.attribute("reduce") is not None


def _index_put(spec: OpSpec) -> Work:
    inputs = arguments(spec)  # self, indices..., values
    values = inputs[-1]
    indices = inputs[1:-1]
    if values.numel == 1 and indices:  # a scalar is spread over all indexed places
        places = max(index.numel for index in indices)
        table = inputs[0]
        row = table.numel // max(1, table.shape[0]) if table.shape and len(indices) == 1 else 1
        if indices[0].dtype == "bool":  # a mask covers as many dimensions as it has, and all places at most
            row = table.numel // max(1, places)
        values = TensorSpec(table.dtype, (places, row))
    return scatter(spec, values, indices, adds=_adds(spec))


def _scatter(spec: OpSpec) -> Work:
    inputs = arguments(spec)  # self, index, src? (a scalar value is an attribute)
    index = inputs[1] if len(inputs) > 1 else first(spec)
    table = inputs[0]
    if len(inputs) > 2:
        # scatter and gather use as much of src as index covers; index_add and index_copy all of it
        covers = "index" not in spec.base_name
        values = TensorSpec(inputs[2].dtype, index.shape if covers else inputs[2].shape)
    elif "index" in spec.base_name:  # index_fill: one slice of the table for each index
        slices = max(1, _dim_size(spec, table))
        values = TensorSpec(table.dtype, (index.numel, table.numel // slices))
    else:
        values = TensorSpec(table.dtype, index.shape)
    return scatter(spec, values, (index,), adds=_adds(spec))


def _dim_size(spec: OpSpec, table: TensorSpec) -> int:
    dim = spec.attribute("dim", 0)
    return table.shape[dim] if isinstance(dim, int) and table.shape else 1


def _masked_scatter(spec: OpSpec) -> Work:
    table, mask = spec.inputs[:2]
    return scatter(spec, TensorSpec(table.dtype, table.shape), (mask,), adds=False)


def _embedding_backward(spec: OpSpec) -> Work:
    """Gradient of a table: zero it, sort the indices, add the rows."""
    grad, indices = spec.inputs[:2]
    columns = last_dim(grad)
    return streaming(
        spec,
        Family.SCATTER,
        ARITHMETIC * grad.numel,
        bytes_read=2 * nbytes((grad,)) + nbytes((indices,)),
        bytes_written=written_bytes(spec) + nbytes((grad,)),
        kernels=3,
        variant="add",
        dims=rows_columns(rows_of(grad, columns), columns),
    )


def _embedding_bag(spec: OpSpec) -> Work:
    table, indices = spec.inputs[:2]
    columns = last_dim(table)
    taken = indices.numel * columns * table.nbytes / max(1, table.numel)
    return streaming(
        spec,
        Family.EMBEDDING,
        ARITHMETIC * indices.numel * columns,
        bytes_read=taken + nbytes(spec.inputs[1:]),
        dims=rows_columns(indices.numel, columns),
    )


COUNTERS: dict[str, Counter] = {
    **table(
        _gather,
        """
        embedding index index_select gather take take_along_dim _unsafe_index _unsafe_masked_index
        embedding_renorm bucketize searchsorted
        """,
    ),
    **table(
        _embedding_bag,
        """
        _embedding_bag _embedding_bag_forward_only embedding_bag
        """,
    ),
    **table(
        _index_put,
        """
        index_put _index_put_impl _unsafe_index_put put _unsafe_masked_index_put_accumulate
        """,
    ),
    **table(
        _scatter,
        """
        scatter scatter_add scatter_reduce index_add index_copy index_fill index_reduce
        """,
    ),
    "masked_scatter": _masked_scatter,
    **table(
        _embedding_backward,
        """
        embedding_dense_backward embedding_backward _embedding_bag_dense_backward _embedding_bag_backward
        """,
    ),
}

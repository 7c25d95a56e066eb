"""Views (no kernel), copies, fills and random numbers."""

from __future__ import annotations

from windtunnel.program.count.shapes import (
    ARITHMETIC,
    SPECIAL,
    Counter,
    arguments,
    first,
    is_in_place,
    nbytes,
    read_bytes,
    result,
    streaming,
    table,
    written_bytes,
)
from windtunnel.program.op import OpSpec
from windtunnel.program.work import Family, Work

CAT_TENSORS_PER_KERNEL = 128  # ATen/native/cuda/Shape.cu, CAT_ARRAY_BATCH_SIZE
PHILOX_OPS = 10 * 4 * ARITHMETIC / 4  # ten rounds of four operations make four numbers

_VIEWS = """
view _unsafe_view reshape _reshape_alias t numpy_T mT mH matrix_H adjoint transpose permute expand
expand_as broadcast_to slice slice_inverse select squeeze unsqueeze detach alias as_strided split
split_with_sizes unbind chunk unsafe_chunk unsafe_split unsafe_split_with_sizes tensor_split hsplit vsplit
dsplit narrow diagonal unfold view_as view_as_real view_as_complex real imag _conj _neg_view resolve_conj
resolve_neg lift lift_fresh movedim moveaxis swapaxes swapdims flatten unflatten empty empty_like
empty_strided empty_permuted empty_quantized new_empty new_empty_strided set resize resize_as
record_stream is_pinned is_same_size size stride numel storage_offset dim sym_size sym_stride sym_numel
sym_storage_offset sym_is_contiguous is_contiguous is_set_to _version data requires_grad retain_grad
_fw_primal _make_dual _unpack_dual _has_same_storage_numel _assert_tensor_metadata _resize_output
_fused_sdp_choice is_nonzero result_type broadcast_tensors atleast_1d atleast_2d atleast_3d values indices
_values _indices crow_indices col_indices ccol_indices row_indices _nested_get_values _nested_get_offsets
_nested_view_from_jagged sym_constrain_range sym_constrain_range_for_size _assert_scalar _assert_async
get_device is_complex is_floating_point _coalesced is_coalesced _dimI _dimV _nnz sparse_dim dense_dim
_shape_as_tensor _propagate_xla_data unflatten_dense_tensors _print _linalg_check_errors
_functional_assert_async _functional_assert_scalar _functional_sym_constrain_range
_functional_sym_constrain_range_for_size _make_dep_token _philox_key_split _philox_key_fold_in
_local_scalar_dense item meshgrid
"""
_COPIES = """
copy _to_copy to clone contiguous _copy_from _copy_from_and_resize lift_fresh_copy _reshape_copy copy_to
_to_cpu alias_copy view_copy t_copy transpose_copy permute_copy expand_copy squeeze_copy unsqueeze_copy
detach_copy as_strided_copy select_copy slice_copy split_copy split_with_sizes_copy unbind_copy
unfold_copy diagonal_copy narrow_copy view_as_real_copy view_as_complex_copy _conj_copy _lazy_clone
type_as cat concat concatenate stack _stack hstack vstack dstack column_stack row_stack _chunk_cat pad
constant_pad_nd _pad_enum _pad_circular reflection_pad1d reflection_pad2d reflection_pad3d
replication_pad1d replication_pad2d replication_pad3d reflection_pad1d_backward reflection_pad2d_backward
reflection_pad3d_backward replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward
repeat repeat_interleave tile flip fliplr flipud roll rot90 tril triu diag diag_embed diagflat
pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle block_diag select_scatter
slice_scatter diagonal_scatter as_strided_scatter select_backward slice_backward diagonal_backward
unfold_backward _foreach_copy _pin_memory _to_dense to_dense _spdiags _reshape_alias_copy _neg_view_copy
_fw_primal_copy _make_dual_copy int_repr lu_unpack _pack_padded_sequence to_padded_tensor
_transform_bias_rescale_qkv one_hot flatten_dense_tensors pad_sequence combinations cartesian_prod ravel
_nested_from_padded nested_to_padded_tensor _jagged_to_padded_dense_forward
_padded_dense_to_jagged_forward
"""
_FILLS = """
fill zero zeros ones full eye arange range linspace logspace scalar_tensor zeros_like ones_like full_like
new_zeros new_ones new_full tril_indices triu_indices _new_zeros_with_same_feature_meta
_efficientzerotensor hann_window hamming_window blackman_window bartlett_window kaiser_window
trace_backward _foreach_zero _dim_arange fft_fftfreq fft_rfftfreq _cudnn_init_dropout_state
"""
_RANDOMS = """
rand randn randint rand_like randn_like randint_like normal uniform random exponential geometric cauchy
log_normal bernoulli normal_functional poisson binomial multinomial _philox_normal _philox_uniform
_sample_dirichlet _standard_gamma _sobol_engine_draw rrelu_with_noise rrelu_with_noise_functional
"""
_DROPOUTS = "native_dropout dropout _fused_dropout alpha_dropout feature_dropout"


def view(spec: OpSpec) -> Work:
    """Metadata only."""
    return Work(family=Family.VIEW, kernels=0)


def _copy(spec: OpSpec) -> Work:
    source = arguments(spec)
    read, written = read_bytes(spec), written_bytes(spec)
    base = spec.base_name
    if is_in_place(spec) and base in ("aten.copy_", "aten._copy_from_") and len(source) > 1:
        read = nbytes(source[1:])
    elif base.startswith("aten._foreach_copy") and source:
        read, written = nbytes(source[len(source) // 2 :]), nbytes(source[: len(source) // 2])
    elif base in ("aten._copy_from", "aten._copy_from_and_resize") and source:
        read = nbytes(source[:1])
    if _to_host(spec):
        return Work(family=Family.HOST_COPY, bytes_read=read, bytes_written=written, variant="pageable")
    joined = any(word in base for word in ("cat", "stack"))
    kernels = max(1, -(-len(source) // CAT_TENSORS_PER_KERNEL)) if joined else 1
    if base.endswith(("_backward", "_scatter")):
        kernels = 2  # fill or copy the whole, then the part
    return streaming(spec, Family.COPY, bytes_read=read, bytes_written=written, kernels=kernels)


def _to_host(spec: OpSpec) -> bool:
    """A cast to device ``cpu``. Other copies over PCIe are recorded as ``windtunnel.host_copy``."""
    casts = ("aten._to_copy", "aten.to", "aten._to_cpu")
    return spec.base_name in casts and str(spec.attribute("device")).startswith("cpu")


def _fill(spec: OpSpec) -> Work:
    variant = "fill"
    return streaming(spec, Family.COPY, bytes_read=0.0, variant=variant)


def _random(spec: OpSpec) -> Work:
    out = result(spec)
    reads = 0.0 if is_in_place(spec) or "like" in spec.base_name else read_bytes(spec)
    return streaming(
        spec, Family.RANDOM, (PHILOX_OPS + SPECIAL) * out.numel, bytes_read=reads, dims=_elements(out.numel)
    )


def _dropout(spec: OpSpec) -> Work:
    x = first(spec)
    return streaming(spec, Family.RANDOM, (PHILOX_OPS + 2) * x.numel, dims=_elements(x.numel))


def _elements(count: int) -> tuple[tuple[str, float], ...]:
    return (("elements", float(count)),)


COUNTERS: dict[str, Counter] = {
    **table(view, _VIEWS),
    **table(_copy, _COPIES),
    **table(_fill, _FILLS),
    **table(_random, _RANDOMS),
    **table(_dropout, _DROPOUTS),
}

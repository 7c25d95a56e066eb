"""Elementwise operations: one pass over arguments and results."""

from __future__ import annotations

from windtunnel.program.count.shapes import (
    ARITHMETIC,
    SPECIAL,
    Counter,
    first,
    names,
    result,
    results,
    streaming,
    table,
)
from windtunnel.program.op import OpSpec
from windtunnel.program.work import Family, Work

_ARITHMETIC = """
__and__ __or__ __xor__ __lshift__ __rshift__ __iand__ __ior__ __ixor__ __ilshift__ __irshift__ abs
absolute add addcdiv addcmul angle bitwise_and bitwise_left_shift bitwise_not bitwise_or
bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min clip conj_physical _conj_physical complex
copysign deg2rad div divide dropout_backward eq equal fix float_power floor floor_divide fmax fmin fmod
frac frexp gcd ge greater greater_equal gt hardshrink hardshrink_backward hardsigmoid hardsigmoid_backward
hardswish hardswish_backward hardtanh hardtanh_backward heaviside huber_loss huber_loss_backward isclose
isfinite isin isinf isnan isneginf isposinf isreal l1_loss lcm ldexp le leaky_relu leaky_relu_backward
lerp less less_equal logical_and logical_not logical_or logical_xor lt masked_fill _masked_scale maximum
minimum mse_loss mse_loss_backward mul multiply nan_to_num native_dropout_backward ne neg negative
nextafter not_equal positive prelu _prelu_kernel _prelu_kernel_backward rad2deg real reciprocal relu relu6
remainder round rrelu_with_noise_backward rsub sgn sign signbit smooth_l1_loss smooth_l1_loss_backward
softshrink softshrink_backward square sub subtract threshold threshold_backward true_divide trunc where
_add_relu glu_jvp quantize_per_tensor quantize_per_channel dequantize
fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
fake_quantize_per_tensor_affine_cachemask_backward fake_quantize_per_channel_affine_cachemask_backward
_saturate_weight_to_fp16 _amp_update_scale batch_norm_backward_elemt quantize_per_tensor_dynamic
glu_backward_jvp _fake_quantize_learnable_per_tensor_affine
_fake_quantize_learnable_per_tensor_affine_backward _fake_quantize_learnable_per_channel_affine
_fake_quantize_learnable_per_channel_affine_backward
_fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fused_moving_avg_obs_fq_helper
_fused_moving_avg_obs_fq_helper_functional max_unpool2d max_unpool3d __rsub__ __rdiv__ __rpow__
"""
_SPECIAL = """
acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh
binary_cross_entropy binary_cross_entropy_backward binary_cross_entropy_with_logits celu cos cosh digamma
elu elu_backward erf erfc erfinv exp exp2 expm1 gelu gelu_backward glu glu_backward hypot i0 igamma
igammac kl_div lgamma log log10 log1p log2 log_sigmoid_forward log_sigmoid_backward log_sigmoid logaddexp
logaddexp2 logit logit_backward mish mish_backward mvlgamma poisson_nll_loss polar polygamma pow rsqrt
selu sigmoid sigmoid_backward silu silu_backward sin sinc sinh soft_margin_loss soft_margin_loss_backward
softplus softplus_backward sqrt tan tanh tanh_backward xlogy infinitely_differentiable_gelu_backward
_standard_gamma_grad _thnn_fused_lstm_cell _thnn_fused_lstm_cell_backward_impl _thnn_fused_gru_cell
_thnn_fused_gru_cell_backward _dirichlet_grad
"""
SPECIAL_PREFIX = "special_"  # torch.special: elementwise functions without a name above


def pointwise(spec: OpSpec, ops: float) -> Work:
    """``ops`` vector operations for each element of the largest operand."""
    elements = float(max(result(spec).numel, first(spec).numel))
    dims = (("elements", elements), ("ops", ops))
    return streaming(spec, Family.POINTWISE, ops * elements, dims=dims)


def _arithmetic(spec: OpSpec) -> Work:
    return pointwise(spec, ARITHMETIC)


def special(spec: OpSpec) -> Work:
    """One transcendental function of each element."""
    return pointwise(spec, SPECIAL)


_SPECIAL_NAMES = frozenset(names(_SPECIAL))


def ops_of(name: str) -> float:
    """Vector operations of one element of ``aten.<name>``, an overload allowed."""
    base = name.partition(".")[0].removesuffix("_")
    return SPECIAL if base in _SPECIAL_NAMES or base.startswith(SPECIAL_PREFIX) else ARITHMETIC


def _grid(spec: OpSpec) -> Work:
    """Interpolation: each output reads its neighbours, which caches serve after the first time."""
    elements = float(sum(tensor.numel for tensor in results(spec)))
    ops = 16 * ARITHMETIC
    return streaming(spec, Family.POINTWISE, ops * elements, dims=(("elements", elements), ("ops", ops)))


COUNTERS: dict[str, Counter] = {
    **table(_arithmetic, _ARITHMETIC),
    **table(special, _SPECIAL),
    **table(
        _grid,
        """
        grid_sampler_2d grid_sampler_2d_backward grid_sampler_3d grid_sampler_3d_backward
        affine_grid_generator upsample_nearest1d upsample_nearest2d upsample_nearest3d
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d
        upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa
        _upsample_bicubic2d_aa upsample_nearest1d_backward upsample_nearest2d_backward
        upsample_nearest3d_backward _upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward
        _upsample_nearest_exact3d_backward upsample_linear1d_backward upsample_bilinear2d_backward
        upsample_bicubic2d_backward upsample_trilinear3d_backward _upsample_bilinear2d_aa_backward
        _upsample_bicubic2d_aa_backward _upsample_lanczos2d_aa _upsample_lanczos2d_aa_backward
        """,
    ),
}

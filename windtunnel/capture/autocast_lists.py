"""Which operators autocast runs in lower precision, in float32, or in the widest type given.

The lists of PyTorch's own CUDA autocast (``aten/src/ATen/autocast_mode.h``).
"""

from __future__ import annotations

LOWER_PRECISION = tuple(
    """
    mm addmm bmm baddbmm addbmm matmul linear mv addmv addr chain_matmul linalg_multi_dot einsum
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d.input conv_transpose3d.input conv_tbc
    prelu scaled_dot_product_attention _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell
    rnn_tanh_cell rnn_relu_cell
    """.split()
)

FLOAT32 = tuple(
    """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar
    pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm group_norm frobenius_norm.dim
    nuclear_norm nuclear_norm.dim cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss
    nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss
    margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss
    multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp
    cross_entropy_loss prod softmax.int log_softmax.int cumprod cumsum prod.dim_int sum
    sum.dim_IntList norm.Scalar norm.ScalarOpt_dim linalg_vector_norm linalg_matrix_norm
    upsample_nearest1d upsample_nearest2d upsample_bilinear2d
    """.split()
)

PROMOTE = tuple(
    """
    addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add
    """.split()
)

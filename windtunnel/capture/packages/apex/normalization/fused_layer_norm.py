"""Fused layer normalisation: one kernel forward and one backward, as PyTorch's own is on the card."""

from torch.nn.functional import layer_norm, rms_norm


class FusedLayerNormAffineFunction:
    """Called through ``apply`` only, as autograd functions are."""

    @staticmethod
    def apply(input, weight, bias, normalized_shape, eps, memory_efficient=False):
        return layer_norm(input, tuple(normalized_shape), weight, bias, eps)


class FusedRMSNormAffineFunction:
    """Called through ``apply`` only."""

    @staticmethod
    def apply(input, weight, normalized_shape, eps, memory_efficient=False):
        return rms_norm(input, tuple(normalized_shape), weight, eps)

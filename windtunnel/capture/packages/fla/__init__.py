"""flash-linear-attention's interface on virtual kernels: Gated DeltaNet."""

from fla.modules import FusedRMSNormGated, RMSNorm
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule

__version__ = "0.4.0"
__all__ = [
    "FusedRMSNormGated",
    "RMSNorm",
    "chunk_gated_delta_rule",
    "fused_recurrent_gated_delta_rule",
]

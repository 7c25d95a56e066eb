"""What a collective takes from the kernels that run beside it: multiprocessors.

NCCL's kernels hold one multiprocessor per channel for as long as they run; DeepEP holds as many as it was
given. Copies by DMA engines, NVLS reductions aside, and everything on the S5000's asynchronous communication
engine (ACE) hold none. The share is what concurrent compute slows down by: ``1 / (1 - share)``.
"""

from __future__ import annotations

from windtunnel.network.collective import POINT_TO_POINT, Collective
from windtunnel.network.parameters import expert_parameters
from windtunnel.specs.schema import Chip, Vendor

NCCL_CHANNELS_INSIDE = 24
"""Rings over NVLink switches on Ampere and Hopper (two per NVLink pair of the topology search)."""
NCCL_CHANNELS_BETWEEN = 16
"""Over InfiniBand: two channels for each of eight NICs."""
NCCL_CHANNELS_PAIR = 8
"""Send and receive: NCCL_NCHANNELS_PER_PEER's usual choice over NVLink."""


def sm_share(kind: Collective, nodes: int, chip: Chip, sms: int = 0) -> float:
    """Fraction of the multiprocessors that the collective holds while it runs. ``sms``: as configured."""
    if chip.vendor is not Vendor.NVIDIA or kind is Collective.BARRIER:
        return 0.0
    if sms:
        held = sms
    elif kind in (Collective.DISPATCH, Collective.COMBINE):
        held = expert_parameters().default_sms
    elif kind in POINT_TO_POINT:
        held = NCCL_CHANNELS_PAIR
    else:
        held = NCCL_CHANNELS_INSIDE if nodes == 1 else NCCL_CHANNELS_BETWEEN
    return min(0.9, held / chip.multiprocessors.value)

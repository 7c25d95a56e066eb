"""SGLang widens a latent cache of 8 bits in every step, then runs the kernel of 16 bits: a pass that knows no heads."""

from __future__ import annotations

import numpy as np
import pytest

from windtunnel.cost import decode_attention
from windtunnel.cost.choose import choose
from windtunnel.program.work import Family
from windtunnel.specs.catalogue import chip
from windtunnel.validation.measured import attention

LIBRARY, CARD = "fa3_absorbed@sglang-mla", "h100-sxm"


def seconds(heads: int, keys: int, variant: str, sequences: int = 64) -> float:
    one = np.ones(1)
    width = 1.0 if variant == "mla_fp8_cache" else 2.0
    batch = attention(
        Family.DECODE_ATTENTION, "bf16",
        sequences=sequences * one, heads=heads * one, kv_heads=one, q_len=one, kv_len=keys * one,
        qk_dim=576 * one, v_dim=512 * one, kv_bytes_per_token=576 * width * one, variant=variant,
    )  # fmt: skip
    fit = choose(
        "decode_attention", chip(CARD), library=LIBRARY, precision="bf16", variant=variant, repeated=True
    )
    return float(decode_attention.times(batch, chip(CARD), fit.fit).seconds[0])


@pytest.mark.parametrize(("heads", "measured_s"), [(16, 2.232e-3), (64, 2.245e-3), (128, 2.290e-3)])
def test_time_is_that_measured_whatever_the_heads(heads: int, measured_s: float) -> None:
    """64 sequences of 16,384 tokens on an H100 (``kernel_aic_mla``, calibration)."""
    assert seconds(heads, 16384, "mla_fp8_cache") == pytest.approx(measured_s, rel=0.06)


@pytest.mark.parametrize("keys", [4096, 16384, 65536])
def test_what_it_takes_over_16_bits_goes_with_the_bytes_of_the_cache(keys: int) -> None:
    """Measured: 331 to 347 GB of the narrow cache a second, with 16 heads and with 128."""
    for heads in (16, 128):
        more = seconds(heads, keys, "mla_fp8_cache") - seconds(heads, keys, "mla")
        assert 64 * keys * 576 / more == pytest.approx(335e9, rel=0.15)

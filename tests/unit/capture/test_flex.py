"""Flex attention: one operation each way, with the sparsity of its block mask."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from windtunnel.capture.session import Session

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def test_density_is_that_of_the_mask(shadow: Session) -> None:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def window(b: object, h: object, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (q >= k) & (q - k < 256)

    mask = create_block_mask(window, None, None, 2048, 2048, device="musa")
    q = torch.empty(1, 8, 2048, 64, device="musa", dtype=torch.bfloat16, requires_grad=True)
    flex_attention(q, q, q, block_mask=mask).sum().backward()
    found = {s.name: s.attribute("density") for s in shadow.recorder.specs if "flex_attention" in s.name}
    expected = 1 - mask.sparsity() / 100
    assert found["windtunnel.flex_attention"] == pytest.approx(expected)
    assert found["windtunnel.flex_attention_backward"] == pytest.approx(expected)


def test_values_equal_plain_attention(values: Session) -> None:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, 128, 128, device="musa")
    q, k, v = (torch.randn(1, 2, 128, 16) for _ in range(3))
    with torch.no_grad():
        out = flex_attention(q.to("musa"), k.to("musa"), v.to("musa"), block_mask=mask)
    expected = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-4, atol=1e-5)

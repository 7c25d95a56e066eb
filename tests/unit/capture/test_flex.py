"""Flex attention: one operation each way, with the sparsity of its block mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def documents(length: int, batch: int, device: str) -> tuple[torch.Tensor, Callable[..., torch.Tensor]]:
    """Packed documents of unlike lengths in every row, and their causal mask."""
    rows = torch.arange(batch)[:, None] * 37 + torch.arange(length)
    ids = (rows // 300).to(device)

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (ids[b, q] == ids[b, k]) & (q >= k)

    return ids, mask


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("length", "batch"), [(512, 2), (2000, 3), (3072, 2)])
def test_block_masks_equal_those_of_the_cpu(shadow: Session, compiled: bool, length: int, batch: int) -> None:
    from torch.nn.attention import flex_attention as flex

    make = torch.compile(flex.create_block_mask) if compiled else flex.create_block_mask
    _, here = documents(length, batch, "musa")
    _, there = documents(length, batch, "cpu")
    found = make(here, batch, None, length, length, device="musa")
    expected = flex.create_block_mask(there, batch, None, length, length, device="cpu")
    assert torch.equal(found.to_dense().cpu(), expected.to_dense())
    for name in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name


def test_a_compiled_block_mask_is_one_kernel_and_allocates_little(shadow: Session) -> None:
    from torch.nn.attention import flex_attention as flex

    begin = len(shadow.recorder.events)
    _, mask = documents(8192, 1, "musa")
    made = torch.compile(flex.create_block_mask)(mask, 1, None, 8192, 8192, device="musa")
    q = torch.empty(1, 4, 8192, 64, device="musa", dtype=torch.bfloat16)
    torch.compile(flex.flex_attention)(q, q, q, block_mask=made)
    program = shadow.program()
    names = [program.specs[program.site(e).spec].name for e in program.events.tolist()[begin:] if e >= 0]
    assert names.count("windtunnel.fused") == 1
    assert names.count("windtunnel.flex_attention") == 1
    density = next(s.attribute("density") for s in program.specs if s.name == "windtunnel.flex_attention")
    # 27 documents of 300 tokens: far below the half of a causal mask
    assert density == pytest.approx(1 - made.sparsity() / 100)
    assert 0.02 < float(str(density)) < 0.08
    assert program.storage_bytes.max() <= max(q.numel() * 2, 8192 * 8)


def test_a_very_long_mask_is_looked_at_on_a_grid(shadow: Session) -> None:
    from torch.nn.attention import flex_attention as flex

    length = 32768
    made = torch.compile(flex.create_block_mask)(
        lambda b, h, q, k: q >= k, None, None, length, length, device="musa"
    )
    blocks = length // 128
    computed = (blocks * (blocks + 1) / 2) / blocks**2
    assert 1 - made.sparsity() / 100 == pytest.approx(computed)
    assert any("grid" in notice.what for notice in shadow.recorder.notices())


def test_a_mask_of_data_that_is_not_there_stays_unknown(shadow: Session) -> None:
    from torch.nn.attention import flex_attention as flex

    scores = torch.randn(4096, 4096, device="musa")  # no values in shadow mode
    made = torch.compile(flex.create_block_mask)(
        lambda b, h, q, k: scores[q, k] > 0, None, None, 4096, 4096, device="musa"
    )
    q = torch.empty(1, 4, 4096, 64, device="musa", dtype=torch.bfloat16)
    flex.flex_attention(q, q, q, block_mask=made)
    density = [s.attribute("density") for s in shadow.recorder.specs if s.name == "windtunnel.flex_attention"]
    assert density == [1.0]

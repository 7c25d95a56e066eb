"""Kernels that people import: found, right in values mode, shaped in shadow mode, differentiable."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.nn import functional

from windtunnel.capture.session import Session


def names(session: Session) -> set[str]:
    return {spec.base_name for spec in session.recorder.specs}


@pytest.mark.parametrize("causal", [False, True])
def test_flash_attention_equals_plain_attention(values: Session, causal: bool) -> None:
    flash = importlib.import_module("flash_attn")
    torch.manual_seed(0)
    q = torch.randn(2, 5, 4, 16, dtype=torch.bfloat16)
    k, v = (torch.randn(2, 5, 2, 16, dtype=torch.bfloat16) for _ in range(2))

    def plain() -> list[torch.Tensor]:
        leaves = [t.float().requires_grad_() for t in (q, k, v)]
        moved = [t.transpose(1, 2) for t in leaves]
        out = functional.scaled_dot_product_attention(*moved, is_causal=causal, enable_gqa=True)
        out.square().sum().backward()
        return [out.transpose(1, 2).detach(), *(t.grad for t in leaves if t.grad is not None)]

    leaves = [t.to("musa").requires_grad_() for t in (q, k, v)]
    out = flash.flash_attn_func(*leaves, causal=causal)
    out.float().square().sum().backward()
    ours = [out.detach(), *(t.grad for t in leaves if t.grad is not None)]
    for expected, found in zip(plain(), ours, strict=True):
        torch.testing.assert_close(found.float().cpu(), expected, rtol=0.05, atol=0.05)
    assert {"windtunnel.flash_attention", "windtunnel.flash_attention_backward"} <= names(values)


def test_variable_lengths_equal_each_sequence_alone(values: Session) -> None:
    flash = importlib.import_module("flash_attn")
    q = torch.randn(7, 2, 8, dtype=torch.bfloat16, device="musa")
    edges = torch.tensor([0, 3, 7], dtype=torch.int32, device="musa")
    out = flash.flash_attn_varlen_func(q, q, q, edges, edges, 4, 4, causal=True)
    alone = flash.flash_attn_func(q[None, 3:], q[None, 3:], q[None, 3:], causal=True)
    assert torch.equal(out[3:].cpu(), alone[0].cpu())


def test_flash_attention_refuses_float32(shadow: Session) -> None:
    flash = importlib.import_module("flash_attn")
    x = torch.empty(1, 2, 1, 8, device="musa")
    with pytest.raises(RuntimeError, match="fp16 and bf16"):
        flash.flash_attn_func(x, x, x)


def test_gated_delta_rule_equals_transformers_own(values: Session) -> None:
    from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as modeling

    fla = importlib.import_module("fla")
    torch.manual_seed(0)
    b, s, kh, h, d = 1, 70, 2, 4, 8
    q, k = torch.randn(b, s, kh, d), torch.randn(b, s, kh, d)
    v, g, beta = torch.randn(b, s, h, d), -torch.rand(b, s, h), torch.rand(b, s, h)
    reference = getattr(modeling.torch_chunk_gated_delta_rule, "__wrapped__", None)
    assert reference is not None
    expected, state = reference(
        q, k, v, g=g, beta=beta, output_final_state=True, use_qk_l2norm_in_kernel=True
    )
    card = [t.to("musa") for t in (q, k, v, g, beta)]
    for function in (fla.chunk_gated_delta_rule, fla.fused_recurrent_gated_delta_rule):
        out, last = function(*card, output_final_state=True, use_qk_l2norm_in_kernel=True)
        torch.testing.assert_close(out.cpu(), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(last.cpu(), state, rtol=1e-4, atol=1e-5)


def test_gated_delta_rule_has_gradients(values: Session) -> None:
    fla = importlib.import_module("fla")
    torch.manual_seed(0)
    shapes = [(1, 6, 1, 4), (1, 6, 1, 4), (1, 6, 2, 4), (1, 6, 2), (1, 6, 2)]
    leaves = [torch.randn(s, device="musa").mul_(0.3).requires_grad_() for s in shapes]
    out, _ = fla.chunk_gated_delta_rule(*leaves)
    out.sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.shape == leaf.shape
        assert leaf.grad.abs().sum().item() > 0
    assert "windtunnel.gated_delta_chunk_backward" in names(values)


def test_convolution_and_its_update_agree(values: Session) -> None:
    conv = importlib.import_module("causal_conv1d")
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 9, device="musa"), torch.randn(3, 4, device="musa")
    whole = conv.causal_conv1d_fn(x, weight, activation="silu")
    state = torch.zeros(2, 3, 4, device="musa")
    steps = [conv.causal_conv1d_update(x[..., t], state, weight, None, "silu") for t in range(9)]
    torch.testing.assert_close(torch.stack(steps, -1).cpu(), whole.cpu())
    leaf = x.detach().requires_grad_()
    conv.causal_conv1d_fn(leaf, weight.requires_grad_(), None).sum().backward()
    assert leaf.grad is not None
    assert weight.grad is not None


def test_norm_rotary_and_loss_have_gradients(values: Session) -> None:
    rotary = importlib.import_module("flash_attn.layers.rotary")
    losses = importlib.import_module("flash_attn.losses.cross_entropy")
    norms = importlib.import_module("flash_attn.ops.rms_norm")
    torch.manual_seed(0)
    norm = norms.RMSNorm(16).to("musa")
    x = torch.randn(2, 3, 4, 16, device="musa", requires_grad=True)
    cos, sin = torch.randn(3, 8, device="musa"), torch.randn(3, 8, device="musa")
    turned = rotary.apply_rotary_emb(norm(x), cos, sin)
    loss = losses.CrossEntropyLoss()(turned.flatten(0, 2), torch.zeros(24, dtype=torch.long, device="musa"))
    loss.backward()
    wide = x.detach().cpu().requires_grad_()
    a, b = functional.rms_norm(wide, (16,), eps=1e-5).chunk(2, -1)
    c, s = cos.cpu()[:, None], sin.cpu()[:, None]
    expected = functional.cross_entropy(
        torch.cat([a * c - b * s, b * c + a * s], -1).flatten(0, 2), torch.zeros(24, dtype=torch.long)
    )
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert x.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(x.grad.cpu(), wide.grad, rtol=1e-4, atol=1e-6)


def test_block_scaled_products(values: Session) -> None:
    gemm = importlib.import_module("deep_gemm")
    torch.manual_seed(0)
    a, b = torch.randn(4, 256), torch.randn(8, 256)
    scale_a, scale_b = torch.rand(4, 2) + 0.5, torch.rand(1, 2) + 0.5
    low = [t.to(torch.float8_e4m3fn) for t in (a, b)]
    expected = (low[0].float() * scale_a.repeat_interleave(128, 1)) @ (
        low[1].float() * scale_b.repeat_interleave(128, 1)
    ).T
    out = torch.empty(4, 8, dtype=torch.bfloat16, device="musa")
    pairs = [(t.to("musa"), s.to("musa")) for t, s in zip(low, (scale_a, scale_b), strict=True)]
    gemm.fp8_gemm_nt(*pairs, out)
    torch.testing.assert_close(out.float().cpu(), expected, rtol=0.02, atol=0.05)
    experts = (pairs[1][0][None].expand(2, -1, -1), pairs[1][1][None].expand(2, -1, -1))
    rows = torch.tensor([0, 0, 1, 1], device="musa")
    gemm.m_grouped_fp8_gemm_nt_contiguous(pairs[0], experts, out, rows)
    torch.testing.assert_close(out.float().cpu(), expected, rtol=0.02, atol=0.05)
    assert {"windtunnel.block_scaled_gemm", "windtunnel.scaled_grouped_gemm"} <= names(values)


def test_unmodified_transformers_finds_the_kernels(shadow: Session) -> None:
    from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import Qwen3_5MoeTextConfig

    module = importlib.reload(importlib.import_module("transformers.models.qwen3_5_moe.modeling_qwen3_5_moe"))
    config = Qwen3_5MoeTextConfig(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        shared_expert_intermediate_size=64,
        vocab_size=1000,
    )
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("musa"):
            model = module.Qwen3_5MoeForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    ids = torch.randint(0, 1000, (1, 128), device="musa")
    model(ids, labels=ids).loss.backward()
    assert {
        "windtunnel.gated_delta_chunk",
        "windtunnel.gated_delta_chunk_backward",
        "windtunnel.causal_conv1d",
        "windtunnel.causal_conv1d_backward",
    } <= names(shadow)


def test_gated_delta_rule_is_computed_again_under_checkpointing(shadow: Session) -> None:
    from torch.utils.checkpoint import checkpoint

    fla = importlib.import_module("fla")
    q, v = torch.empty(2, 128, 4, 32, device="musa"), torch.empty(2, 128, 4, 64, device="musa")
    g = torch.empty(2, 128, 4, device="musa")
    q.requires_grad_()
    out = checkpoint(lambda x: fla.chunk_gated_delta_rule(x, q, v, g, g)[0], q, use_reentrant=False)
    out.sum().backward()
    assert q.grad is not None
    program = shadow.program()
    ran = [program.specs[program.site(e).spec].base_name for e in program.events.tolist() if e >= 0]
    assert ran.count("windtunnel.gated_delta_chunk") == 2
    assert ran.count("windtunnel.gated_delta_chunk_backward") == 1


def test_packed_documents_run_as_one_kernel_without_data(shadow: Session) -> None:
    fla = importlib.import_module("fla")
    convolution = importlib.import_module("fla.modules.conv.causal_conv1d")
    edges = torch.tensor([0, 50, 128, 300], device="musa")
    q, v = torch.empty(1, 300, 4, 32, device="musa"), torch.empty(1, 300, 4, 64, device="musa")
    g = torch.empty(1, 300, 4, device="musa")
    out, _ = fla.chunk_gated_delta_rule(q, q, v, g, g, cu_seqlens=edges)
    x, w = torch.empty(1, 300, 64, device="musa"), torch.empty(64, 4, device="musa")
    mixed, _ = convolution.causal_conv1d(x=x, weight=w, activation="silu", cu_seqlens=edges)
    assert (out.shape, mixed.shape) == (v.shape, x.shape)
    program = shadow.program()
    ran = [program.specs[program.site(e).spec].base_name for e in program.events.tolist() if e >= 0]
    assert ran.count("windtunnel.gated_delta_chunk") == 1
    assert ran.count("windtunnel.causal_conv1d") == 1


def test_packed_documents_start_anew(values: Session) -> None:
    convolution = importlib.import_module("fla.modules.conv.causal_conv1d")
    torch.manual_seed(0)
    x, w = torch.randn(1, 30, 8), torch.randn(8, 4)
    edges = torch.tensor([0, 11, 30])
    out, _ = convolution.causal_conv1d(x.to("musa"), w.to("musa"), cu_seqlens=edges.to("musa"))
    for begin, end in ((0, 11), (11, 30)):
        alone, _ = convolution.causal_conv1d(x[:, begin:end].to("musa"), w.to("musa"))
        torch.testing.assert_close(out[:, begin:end].cpu(), alone.cpu())

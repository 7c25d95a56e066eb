# ruff: noqa: E501  (a table)
"""Virtual kernels: operations that PyTorch does not have and real deployments run. One table, two users.

Capture records them under these names; ``program/count/virtual_*.py`` counts their work. Tensors come in the
order given; a name in [brackets] may be left out. ``b`` batch, ``s`` length, ``h`` heads, ``d`` head
dimension, ``t`` tokens of all sequences end to end, ``e`` experts.

| name ``windtunnel.`` | inputs | outputs | attributes |
|---|---|---|---|
| ``flash_attention`` | q (b,s,h,d), k, v (b,s,kv_h,d) | out, [lse] | causal, window (keys to the left; -1: none) |
| ``flash_attention_backward`` | grad, q, k, v, out, [lse] | dq, dk, dv | the same |
| ``flash_attention_varlen`` | q (t,h,d), k, v (t,kv_h,d), cu_q, [cu_k] | out, [lse] | causal, window, q_lens, kv_lens; or max_q, max_k |
| ``flash_attention_varlen_backward`` | grad, q, k, v, out, [lse], cu_q, [cu_k] | dq, dk, dv | the same |
| ``paged_attention`` | q (b,s,h,d), k pages (blocks,page,kv_h,d), v pages, [tables] | out | causal, kv_lens; or kv_len (mean) |
| ``mla_decode`` | q (b,s,h,latent+rope), cache (..., latent+rope) | out (b,s,h,latent) | kv_lens; or kv_len |
| ``gated_delta_chunk`` | q, k (b,s,kh,dk), v (b,s,h,dv), g, beta, [state] | out, [state] | chunk (64) |
| ``gated_delta_chunk_backward`` | grad, [grad_state], q, k, v, g, beta, [state] | gradients | chunk (64) |
| ``gated_delta_recurrent`` | q, k, v, g, beta, state (b,h,dk,dv) | out, state | |
| ``causal_conv1d`` | x (b,channels,s), weight (channels,width), [bias] | out | |
| ``causal_conv1d_backward`` | grad, x, weight, [bias] | dx, dweight, [dbias] | |
| ``causal_conv1d_update`` | x (b,channels), state (b,channels,width), weight, [bias] | out, state | |
| ``grouped_gemm`` | a (t,k), b (e,k,n) or (e,n,k); weight gradient: a (t,k), b (t,n) | (t,n); (e,k,n) | top_k |
| ``scaled_grouped_gemm`` | a, b, scale_a, scale_b | (t,n) | top_k, block (128; 32 is MXFP8) |
| ``block_scaled_gemm`` | a (m,k), b (n,k) or (k,n), scale_a, scale_b | (m,n) | block (128) |
| ``rms_norm`` | x, [weight] | out, [rstd] | |
| ``rms_norm_backward`` | grad, x, [weight], [rstd] | dx, [dweight] | |
| ``fused_add_rms_norm`` | x, residual, [weight] | out, residual | |
| ``rotary``, ``rotary_backward`` | tensors to rotate, cos, sin | rotated | |
| ``swiglu`` | gate, up; or both in one | out | |
| ``swiglu_backward`` | grad, gate, up; or both in one | gradients | |
| ``cross_entropy`` | logits (rows,classes), targets | loss, [lse] | |
| ``cross_entropy_backward`` | grad, logits, targets, [lse] | dlogits | |
| ``flex_attention`` | q (b,h,s,d), k, v, [masks, captured] | out, [lse] | density: fraction of blocks computed |
| ``flex_attention_backward`` | grad, q, k, v, out, [lse], ... | dq, dk, dv | density |
| ``moe_permute`` | tokens (t,d), indices | rows (t·top_k,d) | |
| ``moe_unpermute`` | rows (t·top_k,d), indices, [weights] | tokens (t,d) | |
| ``fused`` | external reads of the region | external writes | names: its operations, or ops: how many; rows, columns when it reduces |
| ``host_copy`` | source | destination | direction: h2d or d2h; pinned; non_blocking |
| ``custom`` | any | any | kernel: its name; [flops, vector_flops, bytes_read, bytes_written, precision, kernels] |

Everything left out of ``custom`` is taken from its tensors. Causal FLOPs are those of full attention, as
everywhere; ``density`` scales them.
"""

from __future__ import annotations

PREFIX = "windtunnel."

FLASH_ATTENTION = "windtunnel.flash_attention"
FLASH_ATTENTION_BACKWARD = "windtunnel.flash_attention_backward"
FLASH_ATTENTION_VARLEN = "windtunnel.flash_attention_varlen"
FLASH_ATTENTION_VARLEN_BACKWARD = "windtunnel.flash_attention_varlen_backward"
PAGED_ATTENTION = "windtunnel.paged_attention"
MLA_DECODE = "windtunnel.mla_decode"
GATED_DELTA_CHUNK = "windtunnel.gated_delta_chunk"
GATED_DELTA_CHUNK_BACKWARD = "windtunnel.gated_delta_chunk_backward"
GATED_DELTA_RECURRENT = "windtunnel.gated_delta_recurrent"
CAUSAL_CONV1D = "windtunnel.causal_conv1d"
CAUSAL_CONV1D_BACKWARD = "windtunnel.causal_conv1d_backward"
CAUSAL_CONV1D_UPDATE = "windtunnel.causal_conv1d_update"
GROUPED_GEMM = "windtunnel.grouped_gemm"
SCALED_GROUPED_GEMM = "windtunnel.scaled_grouped_gemm"
BLOCK_SCALED_GEMM = "windtunnel.block_scaled_gemm"
RMS_NORM = "windtunnel.rms_norm"
RMS_NORM_BACKWARD = "windtunnel.rms_norm_backward"
FUSED_ADD_RMS_NORM = "windtunnel.fused_add_rms_norm"
ROTARY = "windtunnel.rotary"
ROTARY_BACKWARD = "windtunnel.rotary_backward"
SWIGLU = "windtunnel.swiglu"
SWIGLU_BACKWARD = "windtunnel.swiglu_backward"
CROSS_ENTROPY = "windtunnel.cross_entropy"
CROSS_ENTROPY_BACKWARD = "windtunnel.cross_entropy_backward"
FLEX_ATTENTION = "windtunnel.flex_attention"
FLEX_ATTENTION_BACKWARD = "windtunnel.flex_attention_backward"
MOE_PERMUTE = "windtunnel.moe_permute"
MOE_UNPERMUTE = "windtunnel.moe_unpermute"
FUSED = "windtunnel.fused"
HOST_COPY = "windtunnel.host_copy"
CUSTOM = "windtunnel.custom"

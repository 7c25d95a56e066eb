"""Megatron-core's own GPT with its schedules and distributed optimizer, on random tokens. Needs `megatron-core`.

Norms are LayerNorm: RMSNorm under sequence parallel takes Transformer Engine.

Options have the names of Megatron-LM, so that those `windtunnel plan` prints can be pasted:

    windtunnel run --on mtt-s5000:64 examples/train_megatron.py --model llama3-70b \\
        --tensor-model-parallel-size 8 --pipeline-model-parallel-size 2 --global-batch-size 64
"""

import argparse
import os

import torch
import torch.distributed as dist
from megatron.core import parallel_state as mpu
from megatron.core import tensor_parallel
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer import MLATransformerConfig, TransformerConfig
from torch.nn import functional

MODELS = {
    "small": {"layers": 4, "hidden": 256, "heads": 16, "groups": 16, "ffn": 1024, "vocabulary": 32000},
    "llama3-8b": {
        "layers": 32, "hidden": 4096, "heads": 32, "groups": 8, "ffn": 14336, "vocabulary": 128256,
    },
    "llama3-70b": {
        "layers": 80, "hidden": 8192, "heads": 64, "groups": 8, "ffn": 28672, "vocabulary": 128256,
    },
    # of Megatron-LM's published weak scaling on H100
    "gpt-7b": {"layers": 30, "hidden": 4096, "heads": 32, "groups": 32, "ffn": 16384, "vocabulary": 131072},
    "gpt-16b": {"layers": 32, "hidden": 6144, "heads": 48, "groups": 48, "ffn": 24576, "vocabulary": 131072},
    # latent attention, and after one dense layer 64 experts with two shared ones
    "deepseek-v2-lite": {
        "layers": 27, "hidden": 2048, "heads": 16, "groups": 16, "ffn": 10944, "vocabulary": 102400,
        "kv_rank": 512, "experts": 64, "expert_ffn": 1408, "shared_ffn": 2816, "top_k": 6,
    },
    "gpt3-175b": {
        "layers": 96, "hidden": 12288, "heads": 96, "groups": 96, "ffn": 49152, "vocabulary": 51200,
    },
}  # fmt: skip

parser = argparse.ArgumentParser()
add = parser.add_argument
add("--model", choices=list(MODELS), default="small")
add("--num-layers", type=int, help="other than the model's own")
add("--num-experts", type=int)
add("--seq-length", type=int, default=4096)
add("--micro-batch-size", type=int, default=1)
add("--global-batch-size", type=int, default=64)
add("--tensor-model-parallel-size", type=int, default=1, dest="tp")
add("--pipeline-model-parallel-size", type=int, default=1, dest="pp")
add("--num-virtual-stages-per-pipeline-rank", type=int, dest="vpp")
add("--context-parallel-size", type=int, default=1, dest="cp")
add("--expert-model-parallel-size", type=int, default=1, dest="ep")
add("--sequence-parallel", action="store_true")
add("--use-distributed-optimizer", action="store_true")
add("--overlap-grad-reduce", action="store_true")
add("--overlap-param-gather", action="store_true")
add("--recompute-granularity", choices=["full", "selective"])
add("--recompute-method", choices=["uniform", "block"])
add("--recompute-num-layers", type=int)
add("--train-iters", type=int, default=2)
args = parser.parse_args()
sizes = MODELS[args.model]
is_gpt = args.model.startswith("gpt")
layers = args.num_layers or sizes["layers"]
latent = "kv_rank" in sizes
experts = args.num_experts or sizes.get("experts")

if latent:
    from megatron.core.transformer import multi_latent_attention

    multi_latent_attention.HAVE_TE = isinstance(
        multi_latent_attention.TELinear, type
    )  # a stand-in without it
if experts:
    from megatron.core.transformer.moe import moe_utils

    if not hasattr(moe_utils, "te_general_gemm"):
        moe_utils.te_general_gemm = None  # 0.16.1 asks for it, and defines it with Transformer Engine only

dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
mpu.initialize_model_parallel(
    tensor_model_parallel_size=args.tp,
    pipeline_model_parallel_size=args.pp,
    virtual_pipeline_model_parallel_size=args.vpp,
    expert_model_parallel_size=args.ep,
    context_parallel_size=args.cp,
)
tensor_parallel.model_parallel_cuda_manual_seed(123)
more = {}
if latent:
    more = {
        "q_lora_rank": None,
        "kv_lora_rank": sizes["kv_rank"],
        "rope_type": "rope",
        "normalization": "LayerNorm",
        "qk_layernorm": True,
        "moe_ffn_hidden_size": sizes["expert_ffn"],
        "moe_shared_expert_intermediate_size": sizes["shared_ffn"],
        "moe_layer_freq": [0] + [1] * (layers - 1),
    }
config = (MLATransformerConfig if latent else TransformerConfig)(
    num_layers=layers,
    hidden_size=sizes["hidden"],
    num_attention_heads=sizes["heads"],
    num_query_groups=sizes["groups"],
    ffn_hidden_size=sizes["ffn"],
    gated_linear_unit=not is_gpt,
    activation_func=functional.gelu if is_gpt else functional.silu,
    add_bias_linear=is_gpt,
    hidden_dropout=0.0,
    attention_dropout=0.0,
    bf16=True,
    params_dtype=torch.bfloat16,
    pipeline_dtype=torch.bfloat16,
    tensor_model_parallel_size=args.tp,
    pipeline_model_parallel_size=args.pp,
    virtual_pipeline_model_parallel_size=args.vpp,
    expert_model_parallel_size=args.ep,
    context_parallel_size=args.cp,
    sequence_parallel=args.sequence_parallel,
    recompute_granularity=args.recompute_granularity,
    recompute_method=args.recompute_method,
    recompute_num_layers=args.recompute_num_layers,
    num_moe_experts=experts,
    moe_token_dispatcher_type="alltoall",
    moe_router_topk=sizes.get("top_k", 2),
    gradient_accumulation_fusion=False,
    **more,
)


class FlashAttention(torch.nn.Module):
    """PyTorch's fused attention: without Transformer Engine Megatron-core writes all scores to memory."""

    def __init__(self, config, layer_number, *args, softmax_scale=None, **kwargs):
        super().__init__()
        self.scale = softmax_scale

    def forward(self, query, key, value, *args, **kwargs):
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))  # (s, b, h, d) to (b, h, s, d)
        gqa = q.shape[1] != k.shape[1]
        out = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=self.scale, enable_gqa=gqa
        )
        return out.permute(2, 0, 1, 3).flatten(2)


def specification(stage):
    """Every layer's modules, Megatron-core's own, with PyTorch's attention."""
    whole = get_gpt_decoder_block_spec(config, use_transformer_engine=False, vp_stage=stage)
    for layer in whole.layer_specs if args.cp == 1 else ():
        layer.submodules.self_attention.submodules.core_attention = FlashAttention
    return whole


def build(stage=None):
    return GPTModel(
        config=config,
        transformer_layer_spec=specification(stage),
        vocab_size=sizes["vocabulary"],
        max_sequence_length=args.seq_length,
        pre_process=mpu.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
        post_process=mpu.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
        position_embedding_type="rope",
        share_embeddings_and_output_weights=False,
        vp_stage=stage,
    )


chunks = [build(stage) for stage in (range(args.vpp) if args.vpp else (None,))]
ddp = DistributedDataParallelConfig(
    use_distributed_optimizer=args.use_distributed_optimizer,
    overlap_grad_reduce=args.overlap_grad_reduce,
    overlap_param_gather=args.overlap_param_gather,
    grad_reduce_in_fp32=True,
)
model = [
    DistributedDataParallel(config, ddp, chunk.cuda(), disable_bucketing=number > 0)
    for number, chunk in enumerate(chunks)
]
optimizer = get_megatron_optimizer(
    OptimizerConfig(
        optimizer="adam",
        lr=1e-4,
        bf16=True,
        use_distributed_optimizer=args.use_distributed_optimizer,
        clip_grad=1.0,
    ),
    model,
)
config.finalize_model_grads_func = finalize_model_grads
if args.overlap_grad_reduce:
    no_sync = [chunk.no_sync for chunk in model]
    config.no_sync_func = no_sync if args.vpp else no_sync[0]
micro_batches = args.global_batch_size // (args.micro_batch_size * mpu.get_data_parallel_world_size())


def forward_step(iterator, model):
    shape = (args.micro_batch_size, args.seq_length // args.cp)
    tokens = torch.randint(0, sizes["vocabulary"], shape, device="cuda")
    positions = torch.arange(shape[1], device="cuda").expand(shape)
    output = model(tokens, positions, None, labels=tokens)

    def loss_function(output):
        loss = output.float().mean()
        return loss, {"loss": loss.detach()}

    return output, loss_function


schedule = get_forward_backward_func()
for step in range(args.train_iters):
    for chunk in model:
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
    losses = schedule(
        forward_step_func=forward_step,
        data_iterator=[None] * len(model) if args.vpp else None,
        model=model if args.vpp else model[0],
        num_microbatches=micro_batches,
        seq_length=args.seq_length,
        micro_batch_size=args.micro_batch_size,
        forward_only=False,
    )
    optimizer.step()
    if losses:
        print("step", step, "loss", sum(x["loss"].item() for x in losses) / len(losses))
dist.destroy_process_group()

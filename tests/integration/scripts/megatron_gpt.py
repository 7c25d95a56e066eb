"""Megatron-core's own GPT: tensor, pipeline, sequence and expert parallel with its distributed optimizer."""

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
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer import TransformerConfig

parser = argparse.ArgumentParser()
parser.add_argument("--tp", type=int, default=1)
parser.add_argument("--pp", type=int, default=1)
parser.add_argument("--vpp", type=int)
parser.add_argument("--ep", type=int, default=1)
parser.add_argument("--cp", type=int, default=1)
parser.add_argument("--experts", type=int)
parser.add_argument("--layers", type=int, default=8)
parser.add_argument("--width", type=int, default=1024)
parser.add_argument("--sequence", type=int, default=1024)
parser.add_argument("--microbatches", type=int, default=8)
args = parser.parse_args()

if args.experts:
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
config = TransformerConfig(
    num_layers=args.layers,
    hidden_size=args.width,
    num_attention_heads=16,
    ffn_hidden_size=4 * args.width,
    use_cpu_initialization=False,
    bf16=True,
    params_dtype=torch.bfloat16,
    pipeline_dtype=torch.bfloat16,
    tensor_model_parallel_size=args.tp,
    pipeline_model_parallel_size=args.pp,
    virtual_pipeline_model_parallel_size=args.vpp,
    expert_model_parallel_size=args.ep,
    context_parallel_size=args.cp,
    sequence_parallel=args.tp > 1,
    num_moe_experts=args.experts,
    moe_token_dispatcher_type="alltoall",
    moe_router_topk=2,
    add_bias_linear=not args.experts,
    gradient_accumulation_fusion=False,
)
VOCABULARY = 32000


def build(stage=None):
    first = mpu.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage)
    last = mpu.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage)
    return GPTModel(
        config=config,
        transformer_layer_spec=get_gpt_layer_local_spec(args.experts),
        vocab_size=VOCABULARY,
        max_sequence_length=args.sequence,
        pre_process=first,
        post_process=last,
        position_embedding_type="rope",
        share_embeddings_and_output_weights=False,
        vp_stage=stage,
    )


chunks = [build(stage) for stage in (range(args.vpp) if args.vpp else (None,))]
ddp_config = DistributedDataParallelConfig(
    use_distributed_optimizer=True, overlap_grad_reduce=False, grad_reduce_in_fp32=True
)
model = [
    DistributedDataParallel(config, ddp_config, chunk.cuda(), disable_bucketing=number > 0)
    for number, chunk in enumerate(chunks)
]
optimizer = get_megatron_optimizer(
    OptimizerConfig(optimizer="adam", lr=1e-4, bf16=True, use_distributed_optimizer=True, clip_grad=1.0),
    model,
)
config.finalize_model_grads_func = finalize_model_grads


def forward_step(iterator, model):
    shape = (1, args.sequence // args.cp)
    tokens = torch.randint(0, VOCABULARY, shape, device="cuda")
    positions = torch.arange(shape[1], device="cuda").unsqueeze(0)
    output = model(tokens, positions, None, labels=tokens)

    def loss_function(output):
        loss = output.float().mean()
        return loss, {"loss": loss.detach()}

    return output, loss_function


schedule = get_forward_backward_func()
for step in range(2):
    for chunk in model:
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
    losses = schedule(
        forward_step_func=forward_step,
        data_iterator=[None] * len(model) if args.vpp else None,
        model=model if args.vpp else model[0],
        num_microbatches=args.microbatches,
        seq_length=args.sequence,
        micro_batch_size=1,
        forward_only=False,
    )
    optimizer.step()
    if losses:
        print("step", step, "loss", sum(x["loss"].item() for x in losses) / len(losses))
dist.destroy_process_group()

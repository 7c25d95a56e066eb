"""FSDP1, FSDP2, HSDP, tensor and sequence parallel on a small transformer."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

kind = sys.argv[1]
dist.init_process_group("nccl")
world = dist.get_world_size()
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
WIDTH, LAYERS, HEADS = 512, 3, 8


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (f(h).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for f in (self.q, self.k, self.v))
        a = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(a.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(1024, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 1024, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def fsdp1(model):
    from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    return FullyShardedDataParallel(
        model,
        auto_wrap_policy=ModuleWrapPolicy({Block}),
        mixed_precision=MixedPrecision(param_dtype=torch.bfloat16),
        device_id=torch.cuda.current_device(),
        use_orig_params=True,
    )


def fsdp2(model, mesh):
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def tensor_parallel(model, mesh, sequence):
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor import parallel as tp

    for block in model.blocks:
        plan = {name: tp.ColwiseParallel() for name in ("q", "k", "v", "up")}
        plan |= {name: tp.RowwiseParallel() for name in ("o", "down")}
        if sequence:
            plan |= {"norm": tp.SequenceParallel(), "norm2": tp.SequenceParallel()}
            plan |= {name: tp.RowwiseParallel(output_layouts=Shard(1)) for name in ("o", "down")}
            plan |= {name: tp.ColwiseParallel(input_layouts=Shard(1)) for name in ("q", "k", "v", "up")}
        tp.parallelize_module(block, mesh, plan)
    plan = {
        "embed": tp.RowwiseParallel(
            input_layouts=Replicate(), output_layouts=Shard(1) if sequence else Replicate()
        ),
        "head": tp.ColwiseParallel(
            input_layouts=Shard(1) if sequence else Replicate(), output_layouts=Replicate()
        ),
    }
    if sequence:
        plan["norm"] = tp.SequenceParallel()
    tp.parallelize_module(model, mesh, plan)
    return model


torch.manual_seed(0)
model = Model().cuda()
if kind == "fsdp1":
    model = fsdp1(model)
elif kind == "fsdp2":
    model = fsdp2(model, init_device_mesh("cuda", (world,)))
elif kind == "hsdp":
    model = fsdp2(model, init_device_mesh("cuda", (2, world // 2), mesh_dim_names=("replicate", "shard")))
elif kind in ("tp", "sp"):
    mesh = init_device_mesh("cuda", (world // 4, 4), mesh_dim_names=("dp", "tp"))
    model = fsdp2(tensor_parallel(model, mesh["tp"], kind == "sp"), mesh["dp"])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(2):
    ids = torch.randint(0, 1024, (4, 256), device="cuda")
    logits = model(ids)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids.flatten())
    loss.backward()
    if kind != "tp":  # its norms are on another mesh than its matrices: PyTorch does not stack the two
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if dist.get_rank() == 0:
        print(f"loss {loss.item():.6f}")
dist.destroy_process_group()

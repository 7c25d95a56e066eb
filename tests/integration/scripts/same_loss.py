"""Trains on one batch, split over however many ranks there are: prints the mean loss of each step."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn

kind = sys.argv[1]
world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
if world > 1:
    dist.init_process_group("nccl")
torch.manual_seed(0)
model = nn.Sequential(nn.Embedding(64, 32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 64)).cuda()
if world > 1 and kind == "ddp":
    model = nn.parallel.DistributedDataParallel(model)
elif world > 1 and kind == "fsdp2":
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cuda", (world,))
    fully_shard(model[1], mesh=mesh)
    fully_shard(model, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
ids = torch.randint(0, 64, (8, 16), generator=torch.Generator().manual_seed(1)).cuda()
mine = ids.chunk(world)[rank]
for _ in range(4):
    loss = nn.functional.cross_entropy(model(mine).flatten(0, 1), mine.flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    mean = loss.detach().clone()
    if world > 1:
        dist.all_reduce(mean, op=dist.ReduceOp.AVG)
    if rank == 0:
        print(f"loss {mean.item():.6f}")
if world > 1:
    dist.destroy_process_group()

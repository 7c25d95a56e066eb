"""DistributedDataParallel on a small model."""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("nccl")
local = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(local)
model = DistributedDataParallel(
    nn.Sequential(nn.Embedding(1000, 1024), *[nn.Linear(1024, 1024) for _ in range(8)]).cuda(),
    device_ids=[local],
)
opt = torch.optim.AdamW(model.parameters())
for step in range(3):
    x = torch.randint(0, 1000, (8, 128), device="cuda")
    loss = model(x).sum()
    loss.backward()
    opt.step()
    opt.zero_grad()
    if dist.get_rank() == 0:
        print("step", step, loss.item())
dist.destroy_process_group()

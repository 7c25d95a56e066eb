"""Pipeline schedules of PyTorch: number of stages, name of the schedule, width (512: all launches and no work)."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining import PipelineStage, schedules

dist.init_process_group("nccl")
rank, world = dist.get_rank(), dist.get_world_size()
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
pp = int(sys.argv[1])
name = sys.argv[2]
width = int(sys.argv[3]) if len(sys.argv) > 3 else 512
mesh = init_device_mesh("cuda", (pp, world // pp), mesh_dim_names=("pp", "dp"))
group = mesh["pp"].get_group()
stage_rank = mesh["pp"].get_local_rank()
cls = schedules.get_schedule_class(name)
multi = issubclass(cls, schedules.PipelineScheduleMulti)
chunks = 2 if multi else 1
n = pp * chunks
style = "v" if name in ("ZBVZeroBubble", "DualPipeV") else "loop"
mine = [stage_rank + i * pp for i in range(chunks)]
if style == "v":
    mine = [stage_rank, 2 * pp - 1 - stage_rank]


class Part(nn.Module):
    def __init__(self, i):
        super().__init__()
        self.emb = nn.Embedding(1000, width) if i == 0 else None
        self.body = nn.Sequential(
            *[
                nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width, bias=False))
                for _ in range(2)
            ]
        )
        self.head = nn.Linear(width, 1000) if i == n - 1 else None

    def forward(self, x):
        if self.emb is not None:
            x = self.emb(x)
        x = self.body(x)
        return self.head(x) if self.head is not None else x


parts = [Part(i).cuda() for i in mine]
stages = [PipelineStage(p, i, n, torch.device("cuda"), group=group) for p, i in zip(parts, mine)]


def loss_fn(out, y):
    return nn.functional.cross_entropy(out.flatten(0, 1), y.flatten())


sched = cls(stages if multi else stages[0], n_microbatches=2 * pp, loss_fn=loss_fn)
opt = torch.optim.AdamW([q for p in parts for q in p.parameters()])
for _step in range(2):
    x = torch.randint(0, 1000, (4 * pp, 128), device="cuda")
    y = torch.randint(0, 1000, (4 * pp, 128), device="cuda")
    losses = []
    first, last = 0 in mine, (n - 1) in mine
    if first:
        sched.step(x, target=y, losses=losses) if last else sched.step(x)
    elif last:
        sched.step(target=y, losses=losses)
    else:
        sched.step()
    for p in parts:
        for q in p.parameters():
            dist.all_reduce(q.grad, group=mesh["dp"].get_group())
    opt.step()
    opt.zero_grad()
    if last:
        print("loss", sum(loss.item() for loss in losses))
dist.destroy_process_group()

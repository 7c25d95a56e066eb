"""One rank prepares a file, all read it after a barrier; objects and numbers travel, on the card and the host."""

import json
import os
import time

import torch
import torch.distributed as dist

dist.init_process_group("nccl")
rank, world = dist.get_rank(), dist.get_world_size()
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
if rank == 0:
    time.sleep(0.5)
    with open("prepared.json", "w") as file:
        json.dump({"width": 256}, file)
dist.barrier()
with open("prepared.json") as file:
    width = json.load(file)["width"]
told = [{"seed": 17}] if rank == 0 else [None]
dist.broadcast_object_list(told, src=0)
objects = [None] * world
dist.all_gather_object(objects, rank * rank)
count = torch.tensor([rank + 1], device="cuda")
dist.all_reduce(count)
first = torch.tensor([rank + 7], device="cuda")
dist.broadcast(first, src=0)
host = dist.new_group(backend="gloo")
most = torch.tensor([float(rank)])
dist.all_reduce(most, op=dist.ReduceOp.MAX, group=host)
shares = torch.full((world,), rank, device="cuda")
received = torch.empty_like(shares)
dist.all_to_all_single(received, shares)
said = [told[0]["seed"], objects, count.item(), first.item(), most.item(), received.tolist()]
with open(f"said-{rank}.json", "w") as file:
    json.dump(said, file)
layer = torch.nn.Linear(width, width).cuda()
loss = layer(torch.randn(64, width, device="cuda")).square().mean()
loss.backward()
dist.all_reduce(loss.detach())  # a number without data on some ranks only must not make the others wait
dist.all_reduce(layer.weight.grad)
dist.destroy_process_group()

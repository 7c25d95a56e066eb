"""Data parallelism as tutorials begin it: a function for each rank, started with torch.multiprocessing.spawn."""

import os
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel


class ToyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.net1 = nn.Linear(1024, 1024)
        self.relu = nn.ReLU()
        self.net2 = nn.Linear(1024, 5)

    def forward(self, x):
        return self.net2(self.relu(self.net1(x)))


def setup(rank, world_size):
    os.environ["MASTER_ADDR"] = "localhost"
    os.environ["MASTER_PORT"] = "12355"
    dist.init_process_group("nccl", rank=rank, world_size=world_size)


def basic(rank, world_size):
    print(f"Running basic DDP example on rank {rank}.")
    setup(rank, world_size)
    model = DistributedDataParallel(ToyModel().to(rank), device_ids=[rank])
    optimizer = optim.SGD(model.parameters(), lr=0.001)
    for _ in range(2):
        optimizer.zero_grad()
        outputs = model(torch.randn(20, 1024))
        labels = torch.randn(20, 5).to(rank)
        nn.MSELoss()(outputs, labels).backward()
        optimizer.step()
    dist.destroy_process_group()


def checkpoint(rank, world_size):
    setup(rank, world_size)
    model = DistributedDataParallel(ToyModel().to(rank), device_ids=[rank])
    path = tempfile.gettempdir() + "/model.checkpoint"
    if rank == 0:
        torch.save(model.state_dict(), path)
    dist.barrier()
    map_location = {"cuda:0": f"cuda:{rank}"}
    model.load_state_dict(torch.load(path, map_location=map_location, weights_only=True))
    optimizer = optim.SGD(model.parameters(), lr=0.001)
    optimizer.zero_grad()
    nn.MSELoss()(model(torch.randn(20, 1024)), torch.randn(20, 5).to(rank)).backward()
    optimizer.step()
    dist.barrier()
    if rank == 0:
        os.remove(path)
    dist.destroy_process_group()
    print(f"Finished running DDP checkpoint example on rank {rank}.")


def run_demo(demo, world_size):
    mp.spawn(demo, args=(world_size,), nprocs=world_size, join=True)


if __name__ == "__main__":
    n_gpus = torch.cuda.device_count()
    assert n_gpus >= 2, f"Requires at least 2 GPUs to run, but got {n_gpus}"
    run_demo(basic, n_gpus)
    run_demo(checkpoint, n_gpus)

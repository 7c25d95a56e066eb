"""Data parallelism in processes that the script starts one by one, beside one that logs and is no rank."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def log(queue):
    while (line := queue.get()) is not None:
        print("log:", line)


def train(rank, size):
    model = DistributedDataParallel(nn.Linear(1024, 1024).to(rank), device_ids=[rank])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    for _ in range(2):
        model(torch.randn(20, 1024, device=rank)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    total = torch.tensor([float(rank)])
    dist.all_reduce(total, group=dist.new_group(backend="gloo"))
    print(f"rank {rank} of {size} is done")


def start(rank, size, function, backend="nccl"):
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", "29501"
    dist.init_process_group(backend, rank=rank, world_size=size)
    function(rank, size)


if __name__ == "__main__":
    size = torch.cuda.device_count()
    queue = mp.Queue()
    logger = mp.Process(target=log, args=(queue,))
    logger.start()
    queue.put("started")
    queue.put(None)
    logger.join()
    processes = []
    for rank in range(size):
        process = mp.Process(target=start, args=(rank, size, train))
        process.start()
        processes.append(process)
    for process in processes:
        process.join()
        assert process.exitcode == 0

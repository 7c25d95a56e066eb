"""Distributed training code in one process, at any world size."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import os, torch, torch.distributed as dist
from torch import nn
from collections import Counter
from windtunnel.capture.session import Session
from windtunnel.specs.catalogue import chip
session = Session(chip("mtt-s5000")).install()
session.join_world(world_size=WORLD, rank=0)
dist.init_process_group("nccl")
def count(begin=0):
    specs = session.recorder.specs
    return Counter(specs[e].base_name for e in session.recorder.events[begin:] if e >= 0)
"""


def run(world: int, body: str) -> str:
    """Each case in a process of its own: PyTorch allows one default group per process."""
    code = PRELUDE.replace("WORLD", str(world)) + textwrap.dedent(body)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_collectives_of_tensors_and_names() -> None:
    out = run(
        16,
        """
        assert dist.get_world_size() == 16 and dist.get_backend() == "nccl"
        x = torch.empty(1024, 1024, device="musa")
        dist.all_reduce(x)
        handle = dist.all_reduce(x, async_op=True); handle.wait()
        gathered = torch.empty(16 * 1024, 1024, device="musa")
        dist.all_gather_into_tensor(gathered, x)
        dist.reduce_scatter_tensor(x, gathered)
        dist.broadcast(x, 0); dist.barrier()
        group = dist.new_group([0, 1, 2, 3], backend="gloo")
        assert dist.get_backend(group) == "gloo"
        dist.all_reduce(x, group=group)
        sizes = torch.ones(4, dtype=torch.long, device="musa")
        dist.all_reduce(sizes)
        assert sizes.tolist() == [16] * 4
        dist.all_reduce(sizes, op=dist.ReduceOp.MAX)
        assert sizes.tolist() == [16] * 4
        objects = [None] * 16
        dist.all_gather_object(objects, {"a": 1})
        assert objects == [{"a": 1}] * 16
        program = session.program()
        print(sorted(count()), [len(g.ranks) for g in program.groups])
        """,
    )
    for name in ("c10d.allreduce_", "c10d._allgather_base_", "c10d._reduce_scatter_base_"):
        assert name in out
    assert "windtunnel.wait_collective" in out
    assert "[16, 4]" in out


def test_ddp_reduces_gradients_in_buckets() -> None:
    out = run(
        8,
        """
        from torch.nn.parallel import DistributedDataParallel
        layers = nn.Sequential(nn.Linear(2048, 2048), nn.Linear(2048, 2048)).to("musa")
        model = DistributedDataParallel(layers)
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            begin = len(session.recorder.events)
            model(torch.randn(4, 2048, device="musa")).sum().backward()
            optimizer.step(); optimizer.zero_grad()
        found = count(begin)
        print(found["c10d.allreduce_"], found["windtunnel.wait_collective"])
        """,
    )
    reduced, waited = map(int, out.split())
    assert waited >= reduced >= 1  # bucket rebuilding broadcasts and waits too


def test_fsdp2_gathers_and_scatters() -> None:
    out = run(
        8,
        """
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.device_mesh import init_device_mesh
        mesh = init_device_mesh("musa", (8,))
        with torch.device("musa"):
            model = nn.Sequential(*[nn.Linear(512, 512) for _ in range(4)])
        for layer in model:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            begin = len(session.recorder.events)
            model(torch.randn(4, 512, device="musa")).sum().backward()
            optimizer.step(); optimizer.zero_grad()
        found = count(begin)
        print(found["c10d._allgather_base_"], found["c10d._reduce_scatter_base_"])
        """,
    )
    gathers, scatters = map(int, out.split())
    assert gathers >= 4
    assert scatters == 4


def test_tensor_parallel_reduces_activations() -> None:
    out = run(
        4,
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
        mesh = init_device_mesh("musa", (4,))
        with torch.device("musa"):
            model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
        parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
        begin = len(session.recorder.events)
        model(torch.randn(8, 64, device="musa", requires_grad=True)).sum().backward()
        found = count(begin)
        print(sum(v for k, v in found.items() if k.startswith("c10d.all_reduce")))
        """,
    )
    assert int(out) == 2  # forward after the row-wise layer, backward before the column-wise one


@pytest.mark.parametrize("world", [2, 512])
def test_all_to_all_of_sizes_and_tokens(world: int) -> None:
    out = run(
        world,
        f"""
        counts = torch.full(({world},), 3, dtype=torch.long, device="musa")
        received = torch.empty_like(counts)
        dist.all_to_all_single(received, counts)
        splits = received.tolist()
        x = torch.empty(sum(splits), 128, device="musa", dtype=torch.bfloat16)
        y = torch.empty_like(x)
        dist.all_to_all_single(y, x, splits, splits)
        print(splits == [3] * {world}, count()["c10d.alltoall_base_"])
        """,
    )
    assert out.split() == ["True", "2"]


def test_collectives_keep_their_tensors_only_until_they_are_waited_for() -> None:
    out = run(
        8,
        """
        import gc
        x = torch.empty(1 << 20, device="musa")
        def live():
            gc.collect()
            return torch.musa.memory_allocated()
        before = live()
        for _ in range(8):
            whole = torch.empty(8 << 20, device="musa")
            dist.all_gather_into_tensor(whole, x)
            del whole
        assert live() == before, (live(), before)
        whole = torch.empty(8 << 20, device="musa")
        handle = dist.all_gather_into_tensor(whole, x, async_op=True)
        del whole
        assert live() - before == 4 * (8 << 20)  # still under way
        handle.wait()
        assert live() == before
        handle = dist.all_reduce(x, async_op=True)
        handle.wait()
        assert handle.get_future().value()[0] is x and handle.result()[0] is x
        print("ok")
        """,
    )
    assert "ok" in out

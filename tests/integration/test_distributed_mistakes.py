"""Mistakes in distributed scripts: named with their ranks and lines, never a hang."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_distributed_scripts import windtunnel

START = """
import os, torch, torch.distributed as dist
dist.init_process_group("nccl")
rank = dist.get_rank()
x = torch.zeros(4, dtype=torch.long, device="cuda")
w = torch.ones(512, 512, device="cuda")
"""

MISTAKES = {
    # a receive without a send
    "E230": (
        "if rank == 0: dist.recv(x, src=1)\nelse: dist.all_reduce(w, group=dist.new_group([1]))",
        "rank 0",
    ),
    # both receive before they send
    "E231": ("dist.recv(x, src=1 - rank)\ndist.send(x, dst=1 - rank)", "rank 1"),
    # shapes differ
    "E232": (
        "if rank == 0: dist.send(x[:2].contiguous(), dst=1)\nelse: dist.recv(x, src=0)\n"
        "if rank == 0: dist.recv(x, src=1)\nelse: dist.send(x, dst=0)",
        "rank 1",
    ),
}


def write(folder: Path, body: str) -> str:
    path = folder / "mistake.py"
    path.write_text(START + body + "\n")
    return str(path)


def error(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer["error"]
    return found


@pytest.mark.parametrize("code", MISTAKES)
def test_messages(tmp_path: Path, code: str) -> None:
    body, named = MISTAKES[code]
    found = error(windtunnel(tmp_path, "--on", "mtt-s5000:2", write(tmp_path, body), status=2))
    assert found["code"] == code
    assert named in str(found)
    assert "mistake.py:" in str(found)


def test_rank_missing_from_a_collective(tmp_path: Path) -> None:
    path = write(tmp_path, "if rank != 1: dist.all_reduce(w)\nw @ w")
    found = error(windtunnel(tmp_path, "--on", "mtt-s5000:2", "--ranks", "all", path, status=2))
    assert found["code"] == "E211"
    assert "rank 1" in found["what"]


@pytest.mark.parametrize(
    "line", ["dist.reduce_scatter_tensor(w[:16], w[:100].contiguous())", "dist.broadcast(w, src=9)"]
)
def test_sizes_that_do_not_fit_the_group(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, line)
    found = error(windtunnel(tmp_path, "--on", "mtt-s5000:8", path, status=2))
    assert found["code"] == "E244"
    assert "mistake.py:" in str(found)


NEVER_JOINED = {
    "E239": ("if rank != 1: dist.barrier()", "rank 1"),
    "E212": ("dist.barrier() if rank else dist.all_gather_object([0, 0], rank)", "all_gather_object"),
    "E231": (
        "dist.barrier() if rank else dist.all_reduce(w)\ndist.all_reduce(w) if rank else dist.barrier()",
        "rank 1",
    ),
    "E231, messages": (
        "one = dist.new_group([0, 1])\nif rank: dist.recv(x, src=0); dist.barrier(group=one)\n"
        "else: dist.barrier(group=one); dist.send(x, dst=1)",
        "rank 0",
    ),
}


@pytest.mark.parametrize("code", NEVER_JOINED)
def test_a_rank_that_never_comes_is_found_while_the_others_wait(tmp_path: Path, code: str) -> None:
    body, named = NEVER_JOINED[code]
    path = write(tmp_path, f"{body}\nw @ w")
    run = ("--on", "mtt-s5000:2", "--ranks", "all", path)
    found = error(windtunnel(tmp_path, *run, status=2))
    assert found["code"] == code[:4]
    assert named in str(found)
    assert "mistake.py:" in str(found)


def test_ranks_disagree_about_a_size(tmp_path: Path) -> None:
    path = write(tmp_path, "dist.all_reduce(w if rank else w[:8])\nw @ w")
    found = error(windtunnel(tmp_path, "--on", "mtt-s5000:2", "--ranks", "all", path, status=2))
    assert found["code"] == "E212"
    assert {"rank 0", "rank 1"} <= set(found["values"])
    assert "mistake.py:7" in found["values"]["rank 1"]


def test_ranks_disagree_in_values_mode(tmp_path: Path) -> None:
    path = write(tmp_path, "dist.all_reduce(w if rank else w[:8])")
    found = error(windtunnel(tmp_path, "--values", "--on", "mtt-s5000:2", path, status=2))
    assert found["code"] == "E212"


def test_script_with_another_world_size(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        'import torch.distributed as dist\ndist.init_process_group("nccl", world_size=4, rank=0)\n'
    )
    found = error(windtunnel(tmp_path, "--on", "mtt-s5000:8", str(path), status=2))
    assert found["code"] == "E242"
    assert "own.py:2" in str(found["values"])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--on", "mtt-s5000:8", "--ranks", "9"), "E236"),
        (("--on", "mtt-s5000:8,h100-sxm:16"), "E235"),
        (("--on", "mtt-s5000:64", "--values"), "E237"),
        (("--on", "mtt-s5000:1024", "--ranks", "all"), "E245"),
        (("--on", "mtt-s5000", "--scale", "8,many"), "E240"),
    ],
)
def test_options(tmp_path: Path, options: tuple[str, ...], code: str) -> None:
    assert error(windtunnel(tmp_path, *options, write(tmp_path, ""), status=2))["code"] == code


def test_memory_that_runs_full_on_one_stage_is_the_answer_not_the_rank_that_waits(tmp_path: Path) -> None:
    body = (
        "import torch\nbig = torch.ones(1 << 14, 1 << 14, device='cuda')\n"
        "if rank == 0:\n    keep = [torch.empty(1 << 32, device='cuda') for _ in range(9)]\n    dist.send(big, dst=1)\n"
        "else:\n    dist.recv(big, src=0)\n    big @ big"
    )
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:2", write(tmp_path, body), status=1)
    assert error(answer)["code"] == "E443"
    assert answer["memory"]["fits"] is False

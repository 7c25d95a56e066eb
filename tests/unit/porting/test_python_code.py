"""What is found in Python code, what becomes of it, and what the edit makes of it."""

from __future__ import annotations

import ast

import pytest

from windtunnel.porting.edits import freed
from windtunnel.porting.finding import Finding, Level
from windtunnel.porting.python_code import findings
from windtunnel.porting.source import Source

HEADER = 'ACCELERATOR = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"'


def found(code: str) -> list[Finding]:
    return list(findings("x.py", Source(f"import torch\n{code}\n")))


def after(code: str) -> str:
    """The edited code without the import and the constant."""
    text = freed("x.py", f"import torch\n{code}\n")
    lines = [line for line in text.splitlines() if line and line != "import torch"]
    assert (HEADER in lines) == ("ACCELERATOR" in "\n".join(line for line in lines if line != HEADER))
    return "\n".join(line for line in lines if line != HEADER)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("torch.cuda.synchronize()", "torch.accelerator.synchronize()"),
        ("s = torch.cuda.Stream()", "s = torch.Stream()"),
        ("x = x.cuda()", "x = x.to(ACCELERATOR)"),
        ("x = x.cuda(rank, non_blocking=True)", "x = x.to(rank, non_blocking=True)"),
        ("x = x.cuda().half().cuda()", "x = x.to(ACCELERATOR).half().to(ACCELERATOR)"),
        ('d = "cuda" if torch.cuda.is_available() else "cpu"', "d = ACCELERATOR"),
        ('d = torch.device(f"cuda:{i}")', 'd = torch.device(f"{ACCELERATOR}:{i}")'),
        ('x = torch.ones(2, device="cuda:1")', 'x = torch.ones(2, device=f"{ACCELERATOR}:1")'),
        ('if x.device.type == "cuda": pass', 'if x.device.type != "cpu": pass'),
        ('if device != "cuda": pass', 'if device == "cpu": pass'),
        ("if not x.is_cuda: pass", 'if not (x.device.type != "cpu"): pass'),
        ("a = torch.cuda.amp.autocast(dtype=t)", "a = torch.autocast(ACCELERATOR, dtype=t)"),
        ("a = torch.cuda.amp.GradScaler(2.0)", "a = torch.amp.GradScaler(ACCELERATOR, 2.0)"),
        (
            'torch.distributed.init_process_group("nccl")',
            "torch.distributed.init_process_group(torch.distributed.get_default_backend_for_device(ACCELERATOR))",
        ),
    ],
)
def test_an_edit_takes_the_vendors_name_out(before: str, expected: str) -> None:
    assert after(before) == expected


@pytest.mark.parametrize(
    "code",
    [
        'names = {"cuda": 1}',
        'if name.startswith("cuda"): pass',
        'if "cuda" in name: pass',
        '"cuda"',
        "e = torch.cuda.Event(True)",  # torch.Event takes keywords only
        "with torch.cuda.stream(s): pass",
        "a = torch.cuda.amp.autocast(False)",
        'if backend == "nccl": pass',
        "ACCELERATOR = 3; x = x.cuda()",  # the file's own word keeps its meaning
    ],
)
def test_no_edit_where_it_could_change_the_meaning(code: str) -> None:
    text = f"import torch\n{code}\n"
    assert freed("x.py", text) == text


@pytest.mark.parametrize(
    ("code", "what", "level"),
    [
        ("torch.cuda.temperature()", "torch.cuda.temperature", Level.TIED),
        ("torch.cuda.get_device_capability()", "torch.cuda.get_device_capability", Level.EDIT),
        ("torch.cuda.is_available()", "torch.cuda.is_available", Level.EDIT),
        ("torch.cuda.nvtx.range_push('x')", "torch.cuda.nvtx.range_push", Level.REDIRECTED),
        ("import apex.optimizers", "import apex", Level.TIED),
        ("from flash_attn import flash_attn_func", "import flash_attn", Level.PORT),
        ("from numba import cuda", "import numba.cuda", Level.TIED),
        ("import os; os.environ['NCCL_DEBUG'] = 'INFO'", "NCCL_DEBUG", Level.EDIT),
        ("import subprocess; subprocess.run(['nvidia-smi', '-q'])", "nvidia-smi", Level.EDIT),
        ("print(torch.version.cuda)", "torch.version.cuda", Level.EDIT),
    ],
)
def test_what_becomes_of_it_on_musa(code: str, what: str, level: Level) -> None:
    assert [(f.what, f.level) for f in found(code)] == [(what, level)]


@pytest.mark.parametrize(
    "code", ["import torch.nn", "import numba", "x = cuda", "x.type()", 'print("cuda is fast")']
)
def test_code_of_no_vendor_is_left_alone(code: str) -> None:
    assert not found(code)


def test_names_are_followed_through_imports() -> None:
    code = "from torch import cuda as c\nimport torch as th\nfrom torch.cuda.amp import autocast\nc.synchronize()\n"
    code += "with autocast(): pass\n"
    text = freed("x.py", code)
    assert "th.accelerator.synchronize()" in text
    assert "th.autocast(ACCELERATOR)" in text
    ast.parse(text)


def test_letters_beyond_ascii_do_not_shift_an_edit() -> None:
    assert after('s = "Größe – 大小"; x = x.cuda()') == 's = "Größe – 大小"; x = x.to(ACCELERATOR)'


def test_the_constant_follows_the_imports() -> None:
    text = freed("x.py", '"""Says."""\nfrom __future__ import annotations\nimport torch\n\n\nx = y.cuda()\n')
    assert text.splitlines()[3:5] == ["", HEADER]
    assert freed("x.py", text) == text

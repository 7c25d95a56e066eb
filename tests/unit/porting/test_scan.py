"""A codebase of several kinds of files; what cannot be read; what a run came past."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.errors import WindtunnelError
from windtunnel.porting.finding import Level
from windtunnel.porting.recorded import reached
from windtunnel.porting.scan import patch, scan
from windtunnel.program.program import Notice, NoticeKind

KERNEL = """#include <cuda_runtime.h>
// asm("a comment");
__global__ void f(float* x) { asm volatile("nop;"); }
void run() { f<<<1, 32>>>(nullptr); cublasSgemm(); }
"""


@pytest.fixture
def codebase(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("import torch\nx = torch.ones(2).cuda()\n")
    (tmp_path / "old.py").write_text("print 'hello'\n")
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "kernel.cu").write_text(KERNEL)
    (tmp_path / "job.sh").write_text("# nvidia-smi\nexport NCCL_DEBUG=INFO\nnvidia-smi -l\n")
    (tmp_path / "requirements.txt").write_text("torch\nflash-attn>=2\n# apex\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "hook.py").write_text("import apex\n")
    return tmp_path


def test_every_kind_of_file_is_read_and_the_rest_listed(codebase: Path) -> None:
    found = scan([codebase])
    places = {(Path(f.path).name, f.line, f.what, f.level) for f in found.findings}
    assert places == {
        ("train.py", 2, ".cuda()", Level.REDIRECTED),
        ("kernel.cu", 1, "CUDA C++, 5 lines", Level.PORT),
        ("kernel.cu", 3, "inline PTX", Level.TIED),
        ("kernel.cu", 4, "kernel launches", Level.PORT),
        ("kernel.cu", 4, "NVIDIA's libraries", Level.PORT),
        ("job.sh", 2, "NCCL_DEBUG", Level.EDIT),
        ("job.sh", 3, "nvidia-smi", Level.EDIT),
        ("requirements.txt", 2, "requires flash-attn", Level.PORT),
    }
    assert {Path(unread.path).name for unread in found.unread} == {"old.py", "latin.py"}
    assert found.findings[0].level is Level.TIED
    assert not found.free


def test_code_that_only_edits_keep_is_free(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import torch\nif torch.cuda.is_available(): torch.cuda.synchronize()\n")
    assert scan([tmp_path]).free


def test_the_patch_holds_only_files_that_change(codebase: Path) -> None:
    text = "".join(patch([codebase]))
    assert text.count("+++ ") == 1
    assert "+x = torch.ones(2).to(ACCELERATOR)" in text


def test_a_run_says_which_places_it_came_past(codebase: Path) -> None:
    train = str(codebase / "train.py")
    notices = [
        Notice(NoticeKind.PRETENDED, "`Tensor.cuda`", f"{train}:2"),
        Notice(NoticeKind.PRETENDED, "`torch.cuda.is_available`", "somewhere/else.py:7", 3),
        Notice(NoticeKind.ASSUMED, "item", f"{train}:1"),
    ]
    found = scan([codebase])
    seen = reached(notices, found)
    assert {f.what for f in seen.findings} == {".cuda()"}
    assert [(place.line, place.count) for place in seen.elsewhere] == [("somewhere/else.py:7", 3)]


def test_paths_that_hold_nothing_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError) as raised:
        scan([tmp_path / "absent"])
    assert raised.value.code == "E981"
    with pytest.raises(WindtunnelError) as raised:
        scan([tmp_path])
    assert raised.value.code == "E982"

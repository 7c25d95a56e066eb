"""The recorded comparison of S5000 FP8 with H100 BF16 on digits-VQA: what `align.json` beside this file holds.

Its ``evidence`` names the command that gives it again and the hash of every run. Imports no PyTorch.
"""

from __future__ import annotations

from pathlib import Path

from windtunnel.results import align_file
from windtunnel.results.align_result import AlignResult

RECORDED = Path(__file__).with_name("align.json")


def recorded() -> AlignResult:
    """The result. Raises E922 if the file was changed."""
    return align_file.load(RECORDED)

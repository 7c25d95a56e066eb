"""The comparison at the scale of the public claim's recipe: four valid ways to compute pass, defects do not.

Gate N8: digits-VQA, a small Qwen3-VL. Every comparison shares one folder, so that reference and replicas are
trained once.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.align.controls import Defect
from windtunnel.cli.main import main
from windtunnel.results import align_file
from windtunnel.results.align_result import AlignResult

STEPS = "30"
VALID = ("mtt-s5000:fp8", "mtt-s5000:fp8-blockwise", "h100-sxm:fp8-blockwise", "h100-sxm:fp8-tensorwise")
pytestmark = pytest.mark.slow


def compared(folder: Path) -> dict[str, AlignResult]:
    """The result for each valid candidate."""
    pytest.importorskip("transformers")
    pytest.importorskip("sklearn")
    found = {}
    for candidate in VALID:
        line = ["align", "-q", "--steps", STEPS, "--candidate", candidate, "--out", str(folder)]
        assert main([*line, "--parallel", "2", "digits-vqa"]) in (0, 1)
        found[candidate] = align_file.load(folder / "align.json")
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AlignResult]:
    return compared(tmp_path_factory.mktemp("digits-vqa"))


def test_valid_recipes_pass_and_defects_are_named(results: dict[str, AlignResult]) -> None:
    check(results)


def check(results: dict[str, AlignResult]) -> None:
    struck = set()
    for candidate, result in results.items():
        assert result.locked.flagged == (), candidate
        assert result.locked.rerun_identical
        controls = {control.defect: control for control in result.locked.controls}
        assert len(controls) == 3
        assert all(control.caught for control in controls.values()), candidate
        halved = controls[Defect.HALVED_GRADIENT]
        assert len(halved.flagged) == 1, candidate
        struck.update(halved.flagged)
        attention = controls[Defect.ATTENTION_SCALE]
        assert attention.place is not None
        assert "attn" in attention.place.module
        assert any("attn" in name for name in attention.flagged[:3])
    assert len(struck) == 1  # the same weight, whatever the candidate computes in


def test_a_floor_stands_next_to_every_deviation(results: dict[str, AlignResult]) -> None:
    for result in results.values():
        assert len(result.deviations) == 9
        assert all(len(judged.floor) == 3 for judged in result.deviations)
        first = result.deviation("first")  # before rounding noise has grown, a format stands out
        assert first is not None
        assert 0 < 3 * first.floor_mean < first.deviation.value < 0.05
        assert result.evaluation is not None
        assert result.evaluation.reference.items == 768
    ours, other = (results[name] for name in VALID[:2])
    assert ours.losses.reference == other.losses.reference  # one run, used by all

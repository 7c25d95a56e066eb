"""`windtunnel align` on a small script: what it finds, what it refuses, that it goes on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from windtunnel.align import campaign as campaigns
from windtunnel.align.branches import CANDIDATE, GOLDEN, YARD
from windtunnel.align.campaign import Campaign, Runs
from windtunnel.align.conclude import conclude
from windtunnel.align.controls import Defect
from windtunnel.align.job import BranchRow, Job, Numbers, Role, decode_record, versions
from windtunnel.cli.main import main
from windtunnel.errors import WindtunnelError
from windtunnel.report import align_page
from windtunnel.results import align_file
from windtunnel.results.align_result import AlignResult

SCRIPTS = Path(__file__).parent / "scripts"
TINY = str(SCRIPTS / "tiny_gpt.py")


def line_of(text: str) -> int:
    lines = Path(TINY).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of six runs."""
    out = tmp_path_factory.mktemp("align") / "tiny"
    assert main(["align", "-q", "--parallel", "2", "--out", str(out), TINY, "--steps", "8"]) == 0
    return out


@pytest.fixture(scope="module")
def result(folder: Path) -> AlignResult:
    return align_file.load(folder / "align.json")


@pytest.fixture(scope="module")
def runs(folder: Path) -> Runs:
    """Its records, by what each run was for."""
    jobs = {}
    for path in (folder / "runs").glob("*.json"):
        job = msgspec.json.decode(path.read_bytes(), type=Job)
        jobs[job.role, job.numbers.chip, job.perturbation] = decode_record(path.with_suffix(".run"))
    return Runs(
        jobs[Role.FREE, "h100-sxm", -1],
        jobs[Role.FREE, "mtt-s5000", -1],
        tuple(jobs[Role.FREE, "h100-sxm", seed] for seed in range(3)),
        jobs[Role.LOCKED, "h100-sxm", -1],
        "",
        0,
    )


CAMPAIGN = Campaign(
    TINY, (), False, Numbers("h100-sxm", "bf16"), Numbers("mtt-s5000", "fp8"), Path("nowhere")
)


def test_every_defect_is_caught_by_name_and_place(result: AlignResult) -> None:
    controls = {control.defect: control for control in result.locked.controls}
    assert set(controls) == {Defect.HALVED_GRADIENT, Defect.ATTENTION_SCALE, Defect.UNSCALED_FP8}
    assert all(control.caught for control in controls.values())
    halved = controls[Defect.HALVED_GRADIENT]
    assert len(halved.flagged) == 1  # the one weight, and none beside it
    assert halved.flagged[0].startswith("blocks.")
    assert halved.place is None  # the forward pass is sound
    attention = controls[Defect.ATTENTION_SCALE]
    assert {"blocks.0.qkv.weight", "blocks.1.qkv.weight"} <= set(attention.flagged)
    assert attention.place is None or attention.place.line.endswith(
        f"tiny_gpt.py:{line_of('scaled_dot_product_attention')}"
    )
    unscaled = controls[Defect.UNSCALED_FP8]
    assert len(unscaled.flagged) > len(attention.flagged)


def test_the_candidate_itself_is_not_flagged(result: AlignResult) -> None:
    assert result.aligned
    assert result.locked.flagged == ()
    assert result.locked.rerun_identical
    assert len(result.locked.rows) == 4
    assert max(row.global_golden for row in result.locked.rows) < 0.01
    assert 0.02 < result.locked.rows[0].global_reference < 0.2  # what FP8 costs
    first = next(p for p in result.locked.places if (p.against, p.limit) == ("reference", 0.0))
    assert first.module == "Model.blocks.0.qkv"  # the first linear layer that FP8 takes
    assert first.line.endswith(f"tiny_gpt.py:{line_of('self.qkv(self.norm(x))')}")


def test_deviations_stand_next_to_the_floor(result: AlignResult) -> None:
    names = [judged.deviation.name for judged in result.deviations]
    assert {"mean", "max", "smoothed", "tail", "final_smoothed"} <= set(names)
    for judged in result.deviations:
        assert len(judged.floor) == 3
        low, high = judged.interval
        assert low <= judged.deviation.value <= high
    mean = result.deviation("mean")
    assert mean is not None
    assert mean.deviation.value > 3 * mean.floor_mean > 0  # a format costs more than rounding does
    assert len(result.norm_deviations) == len(result.deviations)
    assert min(result.norms.reference) > 0.5  # before clipping
    assert result.evaluation is not None
    assert result.evaluation.reference.items == 40


def test_page_and_evidence(result: AlignResult, folder: Path) -> None:
    page = (folder / "align.html").read_text()
    for words in ("Negative controls", "0.62 %", "tiny_gpt.py", result.evidence.runs_sha256):
        assert words in page
    assert page == align_page.render(result)
    assert len(page) < 3_000_000
    assert result.evidence.command.startswith("windtunnel align --reference h100-sxm:bf16 --candidate")
    stated = {row.label.rpartition(",")[2].strip(): row.errors for row in result.accumulators}
    assert stated["fast accumulation"][-1] > 0.2  # 13 bits, 16,384 products, never promoted
    assert max(result.accumulators[-1].errors) < 1e-4  # the candidate's 24 bits
    assert [row.passes_gate for row in result.sensitivity].count(False) >= 3
    changed = json.loads((folder / "align.json").read_text())
    changed["deviations"][0]["deviation"]["value"] = 0.0
    forged = folder / "forged.json"
    forged.write_text(json.dumps(changed))
    with pytest.raises(WindtunnelError) as error:
        align_file.load(forged)
    assert error.value.code == "E922"


def test_goes_on_where_it_stopped_and_gives_the_same_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    popen = subprocess.Popen

    def counting(command: list[str], **keywords: object) -> subprocess.Popen[bytes]:
        started.append(command[-1])
        return popen(command, **keywords)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(campaigns.subprocess, "Popen", counting)
    before = (folder / "align.json").read_bytes()
    again = ["align", "-q", "--out", str(folder), TINY, "--steps", "8"]
    assert main(again) == 0
    assert started == []
    lost = next(
        path
        for path in (folder / "runs").glob("*.run")
        if msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Job).numbers.chip == "mtt-s5000"
    )
    lost.write_bytes(lost.read_bytes()[:100])  # as a full disk leaves it
    assert main(again) == 0
    assert started == [str(lost)]
    assert (folder / "align.json").read_bytes() == before


def test_a_diverging_candidate_is_an_answer(runs: Runs) -> None:
    candidate = msgspec.structs.replace(runs.candidate, losses=(*runs.candidate.losses[:-1], float("nan")))
    found = conclude(CAMPAIGN, replace(runs, candidate=candidate), "")
    assert not found.aligned
    assert found.deviations == ()
    assert any("diverged" in reason and "step 8" in reason for reason in found.reasons)
    assert "diverged" in align_page.render(found)


def test_a_drifting_candidate_is_not_aligned(runs: Runs) -> None:
    drifted = msgspec.structs.replace(runs.candidate, losses=tuple(1.05 * x for x in runs.candidate.losses))
    assert not conclude(CAMPAIGN, replace(runs, candidate=drifted), "").aligned


def answering(runs: Runs, right: tuple[int, ...]) -> Runs:
    """With so many of 40 items right: the reference, the candidate, three replicas."""
    answers = [(True,) * count + (False,) * (40 - count) for count in right]
    records = (runs.reference, runs.candidate, *runs.replicas)
    first, second, *others = (
        msgspec.structs.replace(record, answers=given) for record, given in zip(records, answers, strict=True)
    )
    return replace(runs, reference=first, candidate=second, replicas=tuple(others))


def test_worse_is_what_no_replica_would_score(runs: Runs) -> None:
    assert not conclude(CAMPAIGN, answering(runs, (36, 20, 35, 36, 37)), "").aligned
    noisy = conclude(CAMPAIGN, answering(runs, (36, 20, 16, 30, 24)), "")
    assert noisy.aligned  # replicas of the reference fall as far
    assert noisy.evaluation is not None
    assert noisy.evaluation.p_value < 0.05
    assert noisy.replica_p_values[0] < 0.05
    assert conclude(CAMPAIGN, answering(runs, (30, 40, 30, 31, 29)), "").aligned  # better is not worse


def taken_at(runs: Runs, way: str, step: int) -> BranchRow:
    return next(row for row in runs.locked.branches if (row.way, row.step) == (way, step))


def test_a_broken_candidate_is_flagged(runs: Runs) -> None:
    """Rows of a defect under the candidate's name: the comparison must not pass them."""
    for defect in (Defect.HALVED_GRADIENT, Defect.ATTENTION_SCALE, Defect.UNSCALED_FP8):
        rows = tuple(
            msgspec.structs.replace(
                next(r for r in runs.locked.branches if (r.way, r.step) == (defect, row.step)), way=CANDIDATE
            )
            if (row.way, row.against) == (CANDIDATE, GOLDEN)
            else row
            for row in runs.locked.branches
        )
        found = conclude(
            CAMPAIGN, replace(runs, locked=msgspec.structs.replace(runs.locked, branches=rows)), ""
        )
        assert found.locked.flagged
        assert not found.aligned


def test_diverging_replicas_and_silent_controls_end_it(runs: Runs) -> None:
    replica = msgspec.structs.replace(runs.replicas[0], losses=(float("inf"),) * 8)
    with pytest.raises(WindtunnelError) as error:
        conclude(CAMPAIGN, replace(runs, replicas=(replica, *runs.replicas[1:])), "")
    assert (error.value.code, error.value.exit_status) == ("E713", 1)
    assert "replica 1" in error.value.what
    kept = tuple(row for row in runs.locked.branches if row.way != Defect.UNSCALED_FP8)
    fooled = tuple(  # a defect that leaves no trace
        msgspec.structs.replace(row, gradients=next(r for r in kept if r.way == YARD).gradients)
        if row.way == Defect.ATTENTION_SCALE
        else row
        for row in runs.locked.branches
    )
    for rows in (kept, fooled):
        with pytest.raises(WindtunnelError) as error:
            conclude(CAMPAIGN, replace(runs, locked=msgspec.structs.replace(runs.locked, branches=rows)), "")
        assert error.value.code == "E715"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--candidate", "mtt-s5000:fp9", TINY], "E725"),
        (["--candidate", "a100-80g:fp8", TINY], "E702"),
        (["--candidate", "mtt-s9000:fp8", TINY], "E101"),
        (["--replicas", "2", TINY], "E714"),
        (["--steps", "0", TINY], "E432"),
        (["--threads", "0", TINY], "E991"),
        (["--tolerance", "nan", TINY], "E991"),
        (["digits-vqq"], "E431"),
    ],
)
def test_bad_lines(arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", *arguments]) == 2
    said = capsys.readouterr().err
    assert f"[{code}]" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("script", "code", "status"), [("no_loss", "E712", 2), ("diverges", "E713", 1)])
def test_scripts_that_cannot_be_compared(
    script: str, code: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["align", "-q", "--json", "--out", str(tmp_path / "out"), str(SCRIPTS / f"{script}.py")])
        == status
    )
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"]["code"] == code


def test_losses_under_a_scaler_with_micro_batches(tmp_path: Path) -> None:
    """The loss of a step is what the script prints: unscaled, over all its backward calls."""
    numbers = Numbers("h100-sxm", "as-written")
    job = Job(
        str(SCRIPTS / "scaled.py"), (), False, Role.FREE, numbers, 0, 1, 0, "evaluate_items", "", versions()
    )
    asked, out = tmp_path / "job.json", tmp_path / "out.run"
    asked.write_bytes(msgspec.json.encode(job))
    done = subprocess.run(
        [sys.executable, "-m", "windtunnel.align.worker", str(asked), str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    record = decode_record(out)
    assert record is not None
    printed = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("loss")]
    assert list(record.losses) == pytest.approx(printed, rel=1e-6)
    assert len(printed) == 3
    assert all(0 < norm < 100 for norm in record.norms)  # not 1,024 times as large
    assert record.notes
    assert record.notes[0].startswith("data loaders")

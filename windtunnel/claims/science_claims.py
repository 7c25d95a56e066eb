"""Claims about molecular dynamics and docking."""

from __future__ import annotations

from windtunnel.claims.claim import Answer, Claim, Says, Setting, Variation
from windtunnel.claims.prices import H100, S5000, card, ratio
from windtunnel.estimate import Estimate
from windtunnel.specs.schema import Chip
from windtunnel.workloads.docking.engine_kernels import MEAN_LIGAND, DockingShape, docking_step
from windtunnel.workloads.md.engine_kernels import solvated, step_kernels
from windtunnel.workloads.science.engine import assumed_facts, engine_step

GROUP = "The science"
SIZES = (23_558, 92_224, 408_609, 1_067_095)
FEMTOSECONDS = 4.0
TOGETHER = 64.0


def _step(chip: Chip, atoms: int) -> Estimate:
    return engine_step(step_kernels(solvated(atoms)), chip).seconds


def _sponge() -> Answer:
    ours, theirs = card(S5000), card(H100)
    settings = tuple(
        Setting(
            label=f"{atoms:,} atoms, the same fused engine on both",
            prediction=ratio(_step(theirs, atoms), _step(ours, atoms)),
            bound=max(
                ours.peak("fp32").value / theirs.peak("fp32").value,
                ours.memory_bytes_per_s.value / theirs.memory_bytes_per_s.value,
            ),
            command="windtunnel science md --on mtt-s5000,h100-sxm",
        )
        for atoms in SIZES
    )
    fast = card(S5000, "clock_hz=1.9e9")
    return Answer(
        settings=settings,
        variations=(
            Variation(
                assumption="a clock of 1.9 GHz, as FP8 rates hint",
                prediction=ratio(_step(theirs, SIZES[0]), _step(fast, SIZES[0])),
            ),
            Variation(assumption="launches as fast as an H100's", prediction=ratio(
                _step(theirs, SIZES[0]), _step(card(S5000, f"launch_s={theirs.launch_s.value}"), SIZES[0]))),
        ),
        would_take="another program on the S5000 than on the H100; nothing of the chip explains it",
        why=(
            *(f"{atoms:,} atoms: {FEMTOSECONDS * 1e-6 * 86_400 / _step(ours, atoms).value:,.0f} ns/day against "
              f"{FEMTOSECONDS * 1e-6 * 86_400 / _step(theirs, atoms).value:,.0f} at {FEMTOSECONDS:g} fs a step"
              for atoms in SIZES),
            *(f"assumed of the S5000: {name}: {why}" for name, why in assumed_facts(ours).items()),
        ),
    )  # fmt: skip


def _one(shape: DockingShape, chip: Chip, ligands: float | None) -> Estimate:
    return docking_step(shape, chip, ligands).seconds.scaled(1.0 / (ligands or 1.0))


def _dsdp() -> Answer:
    ours, theirs = card(S5000), card(H100)
    cases = (
        ("every copy launched for itself on both, as the public code does", None, None),
        (f"{TOGETHER:.0f} ligands in one launch on both", TOGETHER, TOGETHER),
    )
    settings = tuple(
        Setting(
            label=label,
            prediction=ratio(_one(MEAN_LIGAND, theirs, under), _one(MEAN_LIGAND, ours, over)),
            command="windtunnel science docking --on mtt-s5000,h100-sxm",
        )
        for label, over, under in cases
    )
    same_launch = card(S5000, f"launch_s={theirs.launch_s.value}")
    steps = {
        name: docking_step(MEAN_LIGAND, chip, None) for name, chip in (("S5000", ours), ("H100", theirs))
    }
    return Answer(
        settings=settings,
        variations=(
            Variation(
                assumption="launches as fast as an H100's, each copy for itself on both",
                prediction=ratio(_one(MEAN_LIGAND, theirs, None), _one(MEAN_LIGAND, same_launch, None)),
            ),
            Variation(
                assumption="another program on each: all copies in one launch on the S5000, one by one on the H100",
                prediction=ratio(_one(MEAN_LIGAND, theirs, None), _one(MEAN_LIGAND, ours, 1.0)),
            ),
        ),
        would_take="two different programs, launches batched on the S5000 only; on equal code the H100 is faster",
        why=(
            *(f"{name}, each copy for itself: {step.seconds.value:.3f} s a ligand, bound by {step.limit} "
              f"(61,440 launches and copies, {step.launch_s:.3f} s of the host)" for name, step in steps.items()),
            *(f"assumed of the S5000: {name}: {why}" for name, why in assumed_facts(ours).items()),
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        name="sponge",
        group=GROUP,
        title="SPONGE molecular dynamics 1.7 times an H100",
        says=Says.AT_LEAST,
        figure=1.7,
        unit="× H100",
        wording="SPONGE molecular dynamics 1.7 times H100",
        said="press, 2026; no primary source found",
        workload="nothing stated",
        assumed=(
            "solvated biomolecules, particle-mesh Ewald, FP32 forces",
            "constants fitted on A100, L40S and RTX 4080",
        ),
        command="windtunnel science md --on mtt-s5000,h100-sxm",
        evaluate=_sponge,
    ),
    Claim(
        name="dsdp",
        group=GROUP,
        title="DSDP docking 8.1 times an H100",
        says=Says.AT_LEAST,
        figure=8.1,
        unit="× H100",
        wording="DSDP docking 8.1 times H100",
        said="press, 2026; no primary source found",
        workload="nothing stated",
        assumed=(
            "DSDP's published settings: 384 copies, 40 moves, 100 gradient steps",
            "work on the host is left out",
        ),
        command="windtunnel science docking --on mtt-s5000,h100-sxm",
        evaluate=_dsdp,
    ),
)

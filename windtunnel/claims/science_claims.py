"""Claims about molecular dynamics and docking."""

from __future__ import annotations

from windtunnel.claims.claim import Answer, Claim, Says, Setting, Steady, Variation
from windtunnel.claims.prices import H100, S5000, card, ratio
from windtunnel.claims.region import solve, table
from windtunnel.estimate import Estimate, Source
from windtunnel.specs.schema import Chip
from windtunnel.workloads.docking.engine_kernels import MEAN_LIGAND, DockingShape, docking_step
from windtunnel.workloads.md.engine_kernels import solvated, step_kernels
from windtunnel.workloads.md.predict import fused_curve, sponge_ratio
from windtunnel.workloads.science.engine import assumed_facts, engine_step

GROUP = "The science"
SIZES = (23_558, 92_224, 408_609, 1_067_095)
TOGETHER = 64.0


def _sponge() -> Answer:
    ours, theirs = card(S5000), card(H100)
    found = sponge_ratio(ours, theirs, SIZES)
    bound = max(
        ours.peak("fp32").value / theirs.peak("fp32").value,
        ours.memory_bytes_per_s.value / theirs.memory_bytes_per_s.value,
    )
    settings = tuple(
        Setting(
            label=f"{point.size:,.0f} atoms, the same fused engine on both",
            prediction=point.rate,
            command="windtunnel science md --on mtt-s5000,h100-sxm",
        )
        for point in found.points
    )

    def smallest(*changed: str) -> Estimate:
        return sponge_ratio(card(S5000, *changed), theirs, SIZES[:1]).points[0].rate

    curves = [fused_curve(chip, SIZES) for chip in (ours, theirs)]
    return Answer(
        settings=settings,
        variations=(
            Variation(of=CLOCK, becomes="1.9 GHz, as FP8 rates hint", prediction=smallest("clock_hz=1.9e9")),
            Variation(
                of=LAUNCH,
                becomes="as fast as an H100's",
                prediction=smallest(f"launch_s={theirs.launch_s.value}"),
            ),
            Variation(
                of=CONSTANTS,
                becomes="both chips miss by the fit's whole spread, in opposite ways",
                prediction=Estimate.exact(found.points[0].rate.high, Source.CALIBRATED),
            ),
            Variation(
                of=SYSTEMS,
                becomes="half as many atoms as the smallest of them",
                prediction=sponge_ratio(ours, theirs, (SIZES[0] // 2,)).points[0].rate,
            ),
            Variation(
                of=EQUAL,
                becomes="programs that differ by 2.6 ×, as the smallest system would need",
                prediction=found.points[0].rate.scaled(2.6),
            ),
        ),
        regions=(
            table(
                "times an H100, by size and by what is assumed of the S5000",
                "atoms",
                (
                    ("as the catalogue has it", ()),
                    ("1.9 GHz", ("clock_hz=1.9e9",)),
                    ("2.08 GHz, as the FP32 peak asks", ("clock_hz=2.08e9",)),
                    ("memory bandwidth of an H100", ("memory_bytes_per_s=3.35e12",)),
                ),
                tuple((f"{n:,}", n) for n in (2500, *SIZES)),
                lambda changed, atoms: sponge_ratio(card(S5000, *changed), theirs, (atoms,)).points[0].rate,
            ),
        ),
        turns=(
            solve(
                "speed-up by software on the S5000 only, 23,558 atoms",
                "×",
                1.0,
                better=100.0,
                worse=0.1,
                figure=1.7,
                predict=lambda factor: factor * found.points[0].rate.value,
            ),
            solve(
                "clock, 23,558 atoms",
                "GHz",
                1.5,
                better=15.0,
                worse=0.15,
                figure=1.7,
                predict=lambda clock: smallest(f"clock_hz={clock * 1e9}").value,
            ),
        ),
        would_take="another program on the S5000 than on the H100; nothing of the chip explains it",
        why=(
            *(
                f"{one.size:,.0f} atoms: {one.rate.value:,.0f} ns/day (bound by {one.limit}) against "
                f"{other.rate.value:,.0f} "
                f"({other.limit}) at 4 fs a step; software would have to bring {extra.value:.1f} ×"
                for one, other, extra in zip(
                    curves[0].points, curves[1].points, found.unexplained, strict=True
                )
            ),
            f"FP32 peaks and memory bandwidths: at most {bound:.2f} to 1; small systems wait for latencies, "
            f"which are alike",
            *_kernels(ours, SIZES[1]),
            *(f"assumed of the S5000: {name}: {why}" for name, why in assumed_facts(ours).items()),
        ),
    )


def _kernels(chip: Chip, atoms: int) -> tuple[str, ...]:
    """The kernels of one step, each priced alone."""
    kernels = step_kernels(solvated(atoms))
    return tuple(
        f"{kernel.name} × {kernel.launches:g} at {atoms:,} atoms: "
        f"{engine_step((kernel,), chip).seconds.value * 1e6:,.0f} µs, {kernel.instructions:.3g} instructions, "
        f"{kernel.memory_bytes / 1e6:,.1f} MB of memory"
        for kernel in kernels
    )


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
    slow = _one(MEAN_LIGAND, theirs, None)

    def by_launch(seconds: float) -> float:
        return slow.value / _one(MEAN_LIGAND, card(S5000, f"launch_s={seconds * 1e-6}"), None).value

    ways = ((f"{n:g} together" if n else "each copy for itself", n) for n in (None, 1.0, 8.0, TOGETHER))
    steps = {
        name: docking_step(MEAN_LIGAND, chip, None) for name, chip in (("S5000", ours), ("H100", theirs))
    }
    columns = tuple(ways)
    return Answer(
        settings=settings,
        variations=(
            Variation(
                of=LAUNCH,
                becomes="as fast as an H100's, each copy for itself on both",
                prediction=ratio(slow, _one(MEAN_LIGAND, same_launch, None)),
            ),
            Variation(
                of=EQUAL,
                becomes="all copies in one launch on the S5000, one by one on the H100",
                prediction=ratio(slow, _one(MEAN_LIGAND, ours, 1.0)),
            ),
            Variation(
                of=EQUAL,
                becomes="64 ligands in one launch on the S5000, one by one on the H100",
                prediction=ratio(slow, _one(MEAN_LIGAND, ours, TOGETHER)),
            ),
            Variation(
                of=CLOCK,
                becomes="1.9 GHz, 64 ligands in one launch on both",
                prediction=ratio(
                    _one(MEAN_LIGAND, theirs, TOGETHER),
                    _one(MEAN_LIGAND, card(S5000, "clock_hz=1.9e9"), TOGETHER),
                ),
            ),
            Variation(
                of="work on the host is left out",
                becomes="0.1 s of it for each ligand on both",
                prediction=ratio(_later(slow), _later(_one(MEAN_LIGAND, ours, 1.0))),
            ),
        ),
        steady=(
            Steady(
                of=SETTINGS, why="both sides do the same work: more or fewer moves change both times alike"
            ),
        ),
        regions=(
            table(
                "times an H100: ligands in one launch on the S5000 (rows) and on the H100 (columns)",
                "launches on the H100",
                columns,
                columns,
                lambda over, under: ratio(_one(MEAN_LIGAND, theirs, under), _one(MEAN_LIGAND, ours, over)),
            ),
        ),
        turns=(
            solve(
                "time of a launch on the S5000, each copy for itself",
                "µs",
                ours.launch_s.value * 1e6,
                better=0.05,
                worse=100.0,
                figure=8.1,
                predict=by_launch,
            ),
        ),
        would_take="two different programs, launches batched on the S5000 only; on equal code the H100 is faster",
        why=(
            *(
                f"{name}, each copy for itself: {step.seconds.value:.3f} s a ligand, bound by {step.limit} "
                f"(61,440 launches and copies, {step.launch_s:.3f} s of the host)"
                for name, step in steps.items()
            ),
            *(f"assumed of the S5000: {name}: {why}" for name, why in assumed_facts(ours).items()),
        ),
    )


def _later(step: Estimate, host_s: float = 0.1) -> Estimate:
    """A ligand's seconds with work on the host before it."""
    return Estimate(step.value + host_s, step.low + host_s, step.high + host_s, step.shares)


CLOCK = "a clock of 1.5 GHz, as the driver says"
LAUNCH = "launches as slow as measured on the S5000"
EQUAL = "equally good programs on both"
SYSTEMS = "systems as large as published benchmarks"
CONSTANTS = "constants fitted on A100, L40S and RTX 4080"
SETTINGS = "DSDP's published settings: 384 copies, 40 moves, 100 gradient steps"

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
        workload="nothing stated; solvated biomolecules, particle-mesh Ewald and FP32 forces taken",
        assumed=(
            EQUAL,
            SYSTEMS,
            CONSTANTS,
            CLOCK,
            LAUNCH,
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
            EQUAL,
            SETTINGS,
            CLOCK,
            LAUNCH,
            "work on the host is left out",
        ),
        command="windtunnel science docking --on mtt-s5000,h100-sxm",
        evaluate=_dsdp,
    ),
)

"""How fast molecular dynamics runs on a chip or a cluster, as a curve over system size. No PyTorch.

    rate = step length × 86,400 s ÷ step time      (ns a day)

Two ways to use several cards: independent replicas, which cost nothing but cards, and one system cut into
domains, where every card computes its share and exchanges what lies near the cuts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from windtunnel.estimate import Estimate, total
from windtunnel.network.collective import Collective
from windtunnel.network.model import NetworkModel
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.schema import Chip
from windtunnel.workloads.md.engine_kernels import MdShape, solvated, step_kernels
from windtunnel.workloads.science.curve import Curve, Point, ratios
from windtunnel.workloads.science.engine import EngineParameters, EngineStep, engine_step

SIZES = (2_500, 10_000, 23_558, 92_224, 408_609, 1_067_095, 4_000_000)
"""Atoms: from a peptide in water over DHFR, ApoA1, Cellulose and STMV to a large complex."""
STEP_FS = 4.0
RATE, SIZE = "ns/day", "atoms"
SPONGE_CLAIM = 1.7
"""Said of the MTT S5000 against H100, without a system, a size or the engines' versions."""
POSITION_BYTES, FORCE_BYTES = 12.0, 12.0
PULSES = 3.0
"""Staged exchange with neighbours along three axes, each way once for positions and once for forces."""


def ns_per_day(step: Estimate, step_fs: float = STEP_FS) -> Estimate:
    """A rate from a step's seconds."""
    return step.inverse(step_fs * 1e-6 * 86400.0)


def fused_step(
    chip: Chip, shape: MdShape, constants: EngineParameters | None = None, *, replicas: int = 1
) -> EngineStep:
    """One step of ``replicas`` copies side by side in the same kernels, in a fused engine."""
    kernels = step_kernels(shape)
    if replicas > 1:
        kernels = tuple(
            replace(
                kernel,
                instructions=kernel.instructions * replicas,
                cache_bytes=kernel.cache_bytes * replicas,
                memory_bytes=kernel.memory_bytes * replicas,
            )
            for kernel in kernels
        )
    return engine_step(kernels, chip, constants)


def fused_curve(
    chip: Chip,
    sizes: Sequence[int] = SIZES,
    *,
    step_fs: float = STEP_FS,
    cutoff_nm: float = 0.9,
    replicas: int = 1,
    constants: EngineParameters | None = None,
) -> Curve:
    """ns/day, all replicas together, against atoms, for solvated biomolecules with particle-mesh Ewald."""
    points = []
    for atoms in sizes:
        step = fused_step(chip, solvated(atoms, cutoff_nm=cutoff_nm), constants, replicas=replicas)
        rate = ns_per_day(step.seconds, step_fs).scaled(float(replicas))
        points.append(Point(float(atoms), rate, step.limit))
    return Curve(chip.name, "fused", SIZE, RATE, tuple(points))


@dataclass(frozen=True, slots=True)
class Decomposed:
    """One system on several cards: the step's parts in seconds, and the rate."""

    atoms: int
    cards: int
    compute: Estimate
    halo: Estimate
    transposes: Estimate
    rate: Estimate

    @property
    def limit(self) -> str:
        """What takes longest."""
        parts = {"compute": self.compute, "halo exchange": self.halo, "mesh transposes": self.transposes}
        return max(parts, key=lambda name: parts[name].value)


def decomposed(
    cluster: Cluster, atoms: int, *, step_fs: float = STEP_FS, cutoff_nm: float = 0.9
) -> Decomposed:
    """``atoms`` cut into as many cubes as the cluster has cards; communication is not hidden behind computing.

    Each card exchanges positions and forces of a half-shell of one cutoff around its cube, in three pulses each way,
    and its part of the mesh in two all-to-all transposes for each of the two transforms.
    """
    cards, whole = cluster.cards, solvated(atoms, cutoff_nm=cutoff_nm)
    own = replace(
        whole,
        atoms=math.ceil(atoms / cards),
        mesh_points=whole.mesh_points / cards,
        bonded_terms=whole.bonded_terms / cards,
    )
    compute = engine_step(step_kernels(own), cluster.chip).seconds
    nothing = Estimate.exact(0.0)
    if cards == 1:
        return Decomposed(atoms, 1, compute, nothing, nothing, ns_per_day(compute, step_fs))
    edge = (own.atoms / own.density_per_nm3) ** (1 / 3)
    shell = ((edge + cutoff_nm) ** 3 - edge**3) * own.density_per_nm3
    shell = min(shell, float(atoms - own.atoms))
    network, everyone = NetworkModel(cluster), tuple(range(cards))
    halo = nothing
    for nbytes in (shell * POSITION_BYTES, shell * FORCE_BYTES):
        pulse = network.collective_time(Collective.SEND, nbytes / PULSES, (0, 1)).estimate()
        halo = total([halo, pulse.scaled(PULSES)])
    mesh_bytes = 8.0 * own.mesh_points / 2.0
    transposes = network.collective_time(Collective.ALL_TO_ALL, mesh_bytes, everyone).estimate().scaled(4.0)
    step = total([compute, halo, transposes])
    return Decomposed(atoms, cards, compute, halo, transposes, ns_per_day(step, step_fs))


def decomposed_curve(cluster: Cluster, sizes: Sequence[int] = SIZES, *, step_fs: float = STEP_FS) -> Curve:
    """ns/day of one system on all cards of a cluster, against atoms."""
    found = [decomposed(cluster, atoms, step_fs=step_fs) for atoms in sizes]
    points = tuple(Point(float(item.atoms), item.rate, item.limit) for item in found)
    return Curve(cluster.name, "decomposed", SIZE, RATE, points)


@dataclass(frozen=True, slots=True)
class ClaimedRatio:
    """A claimed ratio of two chips beside the predicted one.

    Attributes:
        points: predicted ratio at each size, with intervals.
        unexplained: claimed ÷ predicted at each size: what software would have to bring.
    """

    claimed: float
    points: tuple[Point, ...]
    unexplained: tuple[Estimate, ...]

    @property
    def within(self) -> bool:
        """Whether the claim lies inside the interval at any size."""
        return any(point.rate.low <= self.claimed <= point.rate.high for point in self.points)


def sponge_ratio(over: Chip, under: Chip, sizes: Sequence[int] = SIZES) -> ClaimedRatio:
    """The claim of SPONGE on the MTT S5000 against what one engine would do on both chips.

    It compares hardware: the same kernels, equally well written for both. A ratio of two different programs is not
    predicted, and no constant is chosen to meet the claim.
    """
    points = ratios(fused_curve(over, sizes), fused_curve(under, sizes))
    return ClaimedRatio(SPONGE_CLAIM, points, tuple(point.rate.inverse(SPONGE_CLAIM) for point in points))

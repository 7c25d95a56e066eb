"""What a docking costs in a fused engine: laws, not figures."""

from __future__ import annotations

from windtunnel.specs.catalogue import chip
from windtunnel.workloads.docking.engine_kernels import (
    MEAN_LIGAND,
    DockingShape,
    docking_step,
    launched_together,
    ligands_per_second,
)


def test_batches_never_dock_fewer_ligands_a_second() -> None:
    rates = [p.rate.value for p in ligands_per_second(MEAN_LIGAND, chip("h100-sxm"), (1, 4, 16, 64)).points]
    assert rates == sorted(rates)


def test_work_grows_with_the_ligand_and_with_their_number() -> None:
    small, large = DockingShape(atoms=10, pairs=60, torsions=2), MEAN_LIGAND
    work = [
        sum(k.instructions for k in launched_together(shape, n))
        for shape, n in ((small, 1), (large, 1), (large, 3))
    ]
    assert work[0] < work[1]
    assert work[2] == 3 * work[1]


def test_copies_launched_singly_wait_for_the_host() -> None:
    step = docking_step(MEAN_LIGAND, chip("h100-sxm"), None)
    assert step.limit == "launch"
    assert step.seconds.value >= 61_440 * chip("h100-sxm").launch_s.value * 0.999


def test_what_is_assumed_of_a_chip_shows_in_the_source() -> None:
    assert str(docking_step(MEAN_LIGAND, chip("mtt-s5000"), 1.0).seconds.source) == "assumed"

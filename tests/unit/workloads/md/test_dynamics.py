"""Motion obeys mechanics: energy, momentum, time reversal, constraints, temperature; and it can be resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.md import checkpoint
from windtunnel.workloads.md.forces import ForceField
from windtunnel.workloads.md.integrate import Dynamics, Scheme
from windtunnel.workloads.md.minimise import minimise
from windtunnel.workloads.md.units import BOLTZMANN
from windtunnel.workloads.md.water import water_box

from . import inputs


@pytest.fixture(scope="module")
def rigid() -> Dynamics:
    return relaxed(True)


@pytest.fixture(scope="module")
def flexible() -> Dynamics:
    return relaxed(False)


@pytest.fixture(params=["rigid", "flexible"])
def warm(request: pytest.FixtureRequest) -> Dynamics:
    found: Dynamics = request.getfixturevalue(request.param)
    return found


def relaxed(is_rigid: bool) -> Dynamics:
    """216 waters, relaxed and warmed a little."""
    field = ForceField(water_box(216, cutoff_nm=0.8, rigid=is_rigid), dtype=torch.float64)
    dynamics = Dynamics(field, Scheme(step_ps=0.001 if is_rigid else 0.0005, friction_per_ps=50.0))
    minimise(dynamics, 25)
    dynamics.set_temperature(300.0)
    for _ in range(20):
        dynamics()
    return dynamics


def going_on(warm: Dynamics, scheme: Scheme, dtype: torch.dtype = torch.float64) -> Dynamics:
    """A new run from where ``warm`` is."""
    dynamics = Dynamics(ForceField(warm.field.system, dtype=dtype), scheme)
    dynamics.x, dynamics.v = warm.x.clone(), warm.v.clone()
    dynamics.renew()
    dynamics.forces = dynamics.field(dynamics.x, dynamics.pairs, energies=False)[0].double()
    return dynamics


def total(dynamics: Dynamics) -> float:
    return float(dynamics.energies().total + dynamics.kinetic_energy())


def nve(warm: Dynamics) -> Scheme:
    return Scheme(step_ps=0.002 if warm.constraints.any else 0.0005, friction_per_ps=0.0)


def test_time_runs_backwards_to_where_it_began(warm: Dynamics) -> None:
    dynamics = going_on(warm, nve(warm))
    momentum = (dynamics.v / dynamics.inverse_mass).sum(0)
    for _ in range(25):
        dynamics()
    assert float((dynamics.x - warm.x).abs().max()) > 1e-3
    after = (dynamics.v / dynamics.inverse_mass).sum(0)
    # the mesh alone does not conserve momentum exactly: a millionth of a thermal momentum a step is its size
    assert float((after - momentum).abs().max()) < 0.5
    dynamics.v = -dynamics.v
    for _ in range(25):
        dynamics()
    assert float((dynamics.x - warm.x).abs().max()) < 1e-8


def test_energy_is_kept(warm: Dynamics) -> None:
    dynamics = going_on(warm, nve(warm), torch.float32)
    begin = total(dynamics)
    drift = []
    for _ in range(40):
        dynamics()
        drift.append(total(dynamics) - begin)
    thermal = BOLTZMANN * 300.0 * dynamics.field.system.degrees_of_freedom
    assert max(abs(d) for d in drift) < 0.004 * thermal


def test_coordinates_in_half_precision_lose_the_energy(flexible: Dynamics) -> None:
    dynamics = going_on(flexible, nve(flexible), torch.float32)
    begin, worst = total(dynamics), 0.0
    for _ in range(10):
        dynamics()
        dynamics.x = dynamics.x.half().double()
        worst = max(worst, abs(total(dynamics) - begin))
    assert worst > 0.015 * BOLTZMANN * 300.0 * dynamics.field.system.degrees_of_freedom


def steps(dynamics: Dynamics, count: int) -> None:
    for _ in range(count):
        dynamics()


def test_distances_stay_fixed_and_nothing_moves_along_them(rigid: Dynamics) -> None:
    warm, held = going_on(rigid, nve(rigid)), rigid.field.system.terms
    steps(warm, 3)
    first, second = torch.from_numpy(held.constraints).unbind(1)
    d = warm.x[second] - warm.x[first]
    assert np.allclose(d.norm(dim=1).numpy(), held.constraint_nm, rtol=1e-10)
    along = ((warm.v[second] - warm.v[first]) * d).sum(1)
    assert float(along.abs().max()) < 1e-9


def test_a_bath_holds_its_temperature(rigid: Dynamics) -> None:
    dynamics = going_on(rigid, Scheme(step_ps=0.002, friction_per_ps=100.0, temperature_k=300.0, seed=5))
    kelvin = []
    for step in range(80):
        dynamics()
        if step >= 40:
            kelvin.append(float(dynamics.temperature_k()))
    assert np.mean(kelvin) == pytest.approx(300.0, abs=25.0)


def test_a_restart_continues_bit_for_bit(tmp_path: Path) -> None:
    field = ForceField(water_box(216, cutoff_nm=0.8), replicas=2)
    scheme = Scheme(step_ps=0.001, seed=1)
    whole = Dynamics(field, scheme)
    minimise(whole, 10)
    whole.set_temperature(300.0)
    for step in range(12):
        if step == 5:
            checkpoint.save(whole, tmp_path / "c.chk")
        whole()
    again = Dynamics(field, scheme)
    checkpoint.load(again, tmp_path / "c.chk")
    assert again.step == 5
    for _ in range(7):
        again()
    assert torch.equal(again.x, whole.x)
    assert torch.equal(again.v, whole.v)


@pytest.mark.slow
def test_drift_over_two_picoseconds_is_no_more_than_openmms() -> None:
    """S4: 216 flexible waters, 4,000 steps of 0.5 fs, the same start in both programs, double precision."""
    import openmm

    system = water_box(216, cutoff_nm=0.8, rigid=False)
    made = inputs.to_openmm(system)
    field = ForceField(system, dtype=torch.float64)
    start = Dynamics(field, Scheme(step_ps=0.0005, friction_per_ps=20.0))
    minimise(start, 100)
    start.set_temperature(300.0)
    for _ in range(1000):
        start()
    ours = going_on(start, Scheme(step_ps=0.0005, friction_per_ps=0.0))
    context = openmm.Context(
        made, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(start.x.numpy())
    context.setVelocities((start.v - 0.00025 * start.inverse_mass * ours.forces).numpy())
    times, our_energy, their_energy = [], [], []
    for _ in range(100):
        for _ in range(40):
            ours()
        context.getIntegrator().step(40)
        state = context.getState(getEnergy=True)
        times.append(ours.step * 0.0005)
        our_energy.append(total(ours))
        their_energy.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    kt = BOLTZMANN * 300.0 * system.degrees_of_freedom / 1000.0
    our_drift, their_drift = (
        abs(np.polyfit(times, energy, 1)[0]) / kt for energy in (our_energy, their_energy)
    )
    noise = np.std(their_energy) / (times[-1] * kt)  # what a straight line through the noise may show
    assert our_drift <= max(2.0 * their_drift, noise)


def test_a_step_that_is_too_long_is_named_with_its_atom(flexible: Dynamics) -> None:
    dynamics = going_on(flexible, Scheme(step_ps=0.02, friction_per_ps=0.0))
    with pytest.raises(WindtunnelError, match=r"exploded in step \d+: HOH\d+:") as caught:
        steps(dynamics, 200)
    assert caught.value.code == "E944"
    assert caught.value.values["step"] == dynamics.step + 1


def test_minimising_goes_downhill() -> None:
    field = ForceField(water_box(216, cutoff_nm=0.8))
    before, after = minimise(Dynamics(field, Scheme()), 20)
    assert after < before

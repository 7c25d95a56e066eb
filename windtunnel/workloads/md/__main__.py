"""Molecular dynamics from the command line: an ordinary PyTorch script.

python -m windtunnel.workloads.md complex.prmtop complex.inpcrd --steps 1000
windtunnel run --on mtt-s5000 -m windtunnel.workloads.md --waters 8000 --steps 40
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.md import checkpoint
from windtunnel.workloads.md.forces import SKIN_NM, ForceField
from windtunnel.workloads.md.integrate import Dynamics, Scheme
from windtunnel.workloads.md.minimise import minimise
from windtunnel.workloads.md.output import EnergyLog, Trajectory
from windtunnel.workloads.md.read import FORCE_FIELDS, read_amber, read_pdb
from windtunnel.workloads.md.system import Electrostatics, MolecularSystem
from windtunnel.workloads.md.units import AMBER_COULOMB, COULOMB
from windtunnel.workloads.md.water import water_box

RENEW_ON_CARD = 20
"""Steps between pair lists on a device: on a card without data no atom ever moves far enough to ask for one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one simulation; the exit status. Nothing but SystemExit of --help comes out."""
    args = _parser().parse_args(argv)
    try:
        return _run(args)
    except WindtunnelError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_status


def _run(args: argparse.Namespace) -> int:
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    system = _system(args)
    dtype = torch.float64 if args.precision == "double" else torch.float32
    field = ForceField(system, replicas=args.replicas, dtype=dtype, device=device, skin_nm=args.skin_nm)
    scheme = Scheme(
        step_ps=args.step_fs / 1000.0,
        temperature_k=args.temperature,
        friction_per_ps=0.0 if args.nve else args.friction,
        seed=args.seed,
        renew_every=args.renew_every if args.renew_every is not None else _renew_every(device),
    )
    dynamics = Dynamics(field, scheme)
    if args.minimize and not args.restart:
        before, after = minimise(dynamics, args.minimize)
        print(f"minimized: {before:,.1f} to {after:,.1f} kJ/mol")
        dynamics.set_temperature(scheme.temperature_k)
    if args.restart:
        checkpoint.load(dynamics, args.restart)
        print(f"continued from step {dynamics.step:,} of {args.restart}")
    _announce(dynamics)
    return _simulate(dynamics, args)


def _simulate(dynamics: Dynamics, args: argparse.Namespace) -> int:
    trajectory = Trajectory(args.trajectory, dynamics.field.system) if args.trajectory else None
    log = EnergyLog(args.energies, args.replicas) if args.energies else None
    saved, began, first = -1, time.perf_counter(), dynamics.step
    try:
        while dynamics.step < args.steps:
            dynamics()
            step = dynamics.step
            if step % args.every == 0 or step == args.steps:
                _report(dynamics, (step - first) / (time.perf_counter() - began))
                if trajectory is not None:
                    trajectory.write(dynamics)
                if log is not None:
                    log.write(dynamics)
            if args.checkpoint and (step % args.checkpoint_every == 0 or step == args.steps):
                checkpoint.save(dynamics, args.checkpoint)
                saved = step
    except KeyboardInterrupt:
        if args.checkpoint:
            checkpoint.save(dynamics, args.checkpoint)
            print(
                f"stopped at step {dynamics.step:,}; go on with --restart {args.checkpoint}", file=sys.stderr
            )
        return 130
    except WindtunnelError as error:
        if args.checkpoint:
            kept = f"{args.checkpoint}, step {saved:,}" if saved >= 0 else "none was written yet"
            error.values["last_good_checkpoint"] = kept
        raise
    finally:
        for file in (trajectory, log):
            if file is not None:
                file.close()
    return 0


def _announce(dynamics: Dynamics) -> None:
    system, rules = dynamics.field.system, dynamics.field.rules
    mesh = f", mesh {'×'.join(map(str, rules.grid))}" if rules.electrostatics is Electrostatics.PME else ""
    copies = f" × {dynamics.field.replicas}" if dynamics.field.replicas > 1 else ""
    print(
        f"{system.title}: {system.atoms:,} atoms{copies}, {rules.electrostatics}{mesh}, "
        f"{str(dynamics.field.dtype).removeprefix('torch.')} on {dynamics.x.device}"
    )
    print(
        f"{'step':>10} {'time ps':>10} {'potential kJ/mol':>18} {'total kJ/mol':>16} {'K':>8} {'ns/day':>9}"
    )


def _report(dynamics: Dynamics, steps_per_s: float) -> None:
    potential = float(dynamics.energies().total.mean())
    kinetic, kelvin = float(dynamics.kinetic_energy().mean()), float(dynamics.temperature_k().mean())
    picoseconds = dynamics.step * dynamics.scheme.step_ps
    rate = steps_per_s * dynamics.scheme.step_ps * 86.4 * dynamics.field.replicas
    print(
        f"{dynamics.step:>10,} {picoseconds:>10.3f} {potential:>18,.2f} {potential + kinetic:>16,.2f} "
        f"{kelvin:>8.1f} {rate:>9.3f}",
        flush=True,
    )


def _system(args: argparse.Namespace) -> MolecularSystem:
    if args.switch_nm is not None and args.switch_nm >= args.cutoff_nm:
        raise WindtunnelError(
            "E941",
            f"a switch that begins at {args.switch_nm:g} nm is over at the cutoff, {args.cutoff_nm:g} nm",
            hint=f"--switch-nm {0.85 * args.cutoff_nm:.2g}",
        )
    kind = Electrostatics(args.electrostatics) if args.electrostatics else None
    if args.waters:
        return water_box(
            args.waters,
            cutoff_nm=args.cutoff_nm,
            rigid=not args.flexible,
            electrostatics=kind or Electrostatics.PME,
        )
    options: dict[str, object] = {
        "cutoff_nm": args.cutoff_nm,
        "switch_nm": args.switch_nm,
        "rigid": not args.flexible,
        "coulomb": AMBER_COULOMB if args.amber_coulomb else COULOMB,
    }
    if kind is not None:
        options["electrostatics"] = kind
    if args.structure is None:
        raise WindtunnelError(
            "E940",
            "no structure is named",
            hint="give complex.prmtop complex.inpcrd, a PDB file, or --waters 1000",
        )
    if args.structure.suffix.lower() == ".pdb":
        return read_pdb(args.structure, tuple(args.force_field), **options)  # type: ignore[arg-type]
    if args.coordinates is None:
        raise WindtunnelError(
            "E940",
            f"`{args.structure}` holds parameters and no coordinates",
            hint=f"python -m windtunnel.workloads.md {args.structure} complex.inpcrd",
        )
    return read_amber(args.structure, args.coordinates, **options)  # type: ignore[arg-type]


def _renew_every(device: torch.device) -> int:
    return 0 if device.type == "cpu" else RENEW_ON_CARD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m windtunnel.workloads.md",
        description="Molecular dynamics in plain PyTorch, on a CPU, a GPU or a virtual card.",
    )
    add = parser.add_argument
    add("structure", nargs="?", type=Path, help="AMBER prmtop, or a PDB file with hydrogens")
    add("coordinates", nargs="?", type=Path, help="inpcrd, rst7 or PDB for a prmtop")
    add("--waters", type=_positive, metavar="N", help="a box of N TIP3P waters instead of a file")
    add(
        "--force-field",
        nargs="+",
        default=list(FORCE_FIELDS),
        metavar="XML",
        help="OpenMM force fields, for PDB",
    )
    add("--steps", type=_positive, default=100, help="up to this step (default: 100)")
    add("--step-fs", type=_above_zero, default=2.0, help="length of a step, fs (default: 2)")
    add("--temperature", type=_above_zero, default=300.0, metavar="K")
    add(
        "--friction",
        type=_above_zero,
        default=1.0,
        metavar="PER_PS",
        help="of the Langevin bath (default: 1)",
    )
    add("--nve", action="store_true", help="keep the energy: no bath")
    add("--precision", choices=("single", "double"), default="single", help="of forces; positions are double")
    add("--replicas", type=_positive, default=1, help="copies of the system that run side by side")
    add("--electrostatics", choices=[str(kind) for kind in Electrostatics], help="default: PME with a box")
    add("--cutoff-nm", type=_above_zero, default=0.9)
    add("--switch-nm", type=_above_zero, help="where Lennard-Jones begins to be switched off")
    add("--skin-nm", type=_above_zero, default=SKIN_NM)
    add("--renew-every", type=_positive, metavar="N", help="new pair list every N steps at the latest")
    add("--flexible", action="store_true", help="no rigid water, no rigid bonds; take --step-fs 0.5")
    add("--amber-coulomb", action="store_true", help="AMBER's Coulomb constant instead of CODATA's")
    add("--minimize", type=int, default=0, metavar="N", help="steps downhill before the dynamics")
    add("--seed", type=int, default=0)
    add("--device", help="default: cuda where there is one, else cpu")
    add("--every", type=_positive, default=10, metavar="N", help="report, frame and energies every N steps")
    add("--trajectory", type=Path, metavar="FILE", help=".dcd, .xtc or .nc (first replica)")
    add("--energies", type=Path, metavar="FILE.csv")
    add("--checkpoint", type=Path, metavar="FILE")
    add("--checkpoint-every", type=_positive, default=1000, metavar="N")
    add("--restart", type=Path, metavar="FILE", help="go on from a checkpoint, bit for bit")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _above_zero(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


if __name__ == "__main__":
    sys.exit(main())

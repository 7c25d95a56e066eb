"""Trajectories and energies in files that molecular dynamics tools open: DCD, XTC, AMBER NetCDF, CSV."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.md.integrate import Dynamics
from windtunnel.workloads.md.system import MolecularSystem

FORMATS = (".dcd", ".xtc", ".nc")
COLUMNS = (
    "Step",
    "Time (ps)",
    "Potential Energy (kJ/mole)",
    "Kinetic Energy (kJ/mole)",
    "Total Energy (kJ/mole)",
    "Temperature (K)",
)
"""As OpenMM's StateDataReporter names them; a replica column comes first where there are several."""


class Trajectory:
    """Frames of the first replica, written with mdtraj; what the file is follows from its ending.

    Raises:
        WindtunnelError: E946, an unknown ending or a file that cannot be written; E945, no mdtraj.
    """

    def __init__(self, path: Path, system: MolecularSystem) -> None:
        self.system, self.suffix = system, path.suffix.lower()
        if self.suffix not in FORMATS:
            raise WindtunnelError(
                "E946",
                f"`{path}` is no trajectory format that is written here",
                hint=f"end the name in {', '.join(FORMATS)}",
            )
        formats = _mdtraj_formats()
        kind = {
            ".dcd": "DCDTrajectoryFile",
            ".xtc": "XTCTrajectoryFile",
            ".nc": "NetCDFTrajectoryFile",
        }[self.suffix]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that scipy writes NetCDF more slowly than another package
                self.file: Any = getattr(formats, kind)(str(path), "w", force_overwrite=True)
        except OSError as error:
            raise _unwritable(path, error) from None

    def write(self, dynamics: Dynamics) -> None:
        """Add the present positions as a frame."""
        positions = dynamics.x[: self.system.atoms].cpu().numpy()
        box = self.system.box_nm
        time_ps = np.array([dynamics.step * dynamics.scheme.step_ps], dtype=np.float32)
        if self.suffix == ".xtc":
            vectors = None if box is None else np.diag(box).astype(np.float32)[None]
            self.file.write(
                positions.astype(np.float32)[None], time=time_ps, step=np.array([dynamics.step]), box=vectors
            )
            return
        cell = {} if box is None else {"cell_lengths": 10.0 * box[None], "cell_angles": np.full((1, 3), 90.0)}
        if self.suffix == ".nc":
            self.file.write(10.0 * positions[None], time=time_ps, **cell)
        else:
            self.file.write(np.ascontiguousarray(10.0 * positions[None], dtype=np.float32), **cell)

    def close(self) -> None:
        """Finish the file."""
        self.file.close()


class EnergyLog:
    """Energies and temperature, one row a report and replica."""

    def __init__(self, path: Path, replicas: int) -> None:
        try:
            self.file = path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise _unwritable(path, error) from None
        self.replicas = replicas
        names = (("Replica",) if replicas > 1 else ()) + COLUMNS
        self.file.write("#" + ",".join(f'"{name}"' for name in names) + "\n")
        self.writer = csv.writer(self.file)

    def write(self, dynamics: Dynamics) -> None:
        """Add the present energies."""
        potential = dynamics.energies().total.tolist()
        kinetic, kelvin = dynamics.kinetic_energy().tolist(), dynamics.temperature_k().tolist()
        for replica in range(self.replicas):
            row = [
                dynamics.step,
                round(dynamics.step * dynamics.scheme.step_ps, 9),
                potential[replica],
                kinetic[replica],
                potential[replica] + kinetic[replica],
                kelvin[replica],
            ]
            self.writer.writerow([replica, *row] if self.replicas > 1 else row)
        self.file.flush()

    def close(self) -> None:
        """Finish the file."""
        self.file.close()


def _unwritable(path: Path, error: OSError) -> WindtunnelError:
    return WindtunnelError(
        "E946", f"`{path}` cannot be written: {error.strerror or error}", hint="name a folder that exists"
    )


def _mdtraj_formats() -> Any:
    try:
        import mdtraj.formats as formats
    except ImportError:
        raise WindtunnelError(
            "E945",
            "writing trajectories needs mdtraj, which is not installed",
            hint="pip install 'windtunnel[science]'",
        ) from None
    return formats

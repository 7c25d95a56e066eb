"""Constants in the units of the field: nm, ps, u, e, kJ/mol, K."""

from __future__ import annotations

import math

_ELEMENTARY_CHARGE_C = 1.602176634e-19
_AVOGADRO = 6.02214076e23
_VACUUM_PERMITTIVITY = 8.8541878128e-12  # CODATA 2018

COULOMB = _ELEMENTARY_CHARGE_C**2 * _AVOGADRO * 1e6 / (4.0 * math.pi * _VACUUM_PERMITTIVITY)
"""1 ÷ (4π ε₀) in kJ nm mol⁻¹ e⁻²; as OpenMM has it."""

AMBER_COULOMB = 18.2223**2 * 4.184 * 0.1
"""AMBER's own: 3.5e-5 less."""

BOLTZMANN = 1.380649e-23 * _AVOGADRO / 1000.0
"""kJ mol⁻¹ K⁻¹."""

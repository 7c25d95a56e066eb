"""Save and continue a run, bit for bit: state, random numbers, and where the pair list was made."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.md.integrate import Dynamics

VERSION = 1
_FIELDS = {"version", "system", "dtype", "x", "v", "forces", "listed", "step", "listed_at", "draw"}


def save(dynamics: Dynamics, path: Path) -> None:
    """Write a checkpoint; the old one stays until the new one is whole.

    Raises:
        WindtunnelError: E946, the file cannot be written.
    """
    state = {
        "version": VERSION,
        "system": fingerprint(dynamics),
        "dtype": str(dynamics.field.dtype),
        "x": dynamics.x.cpu(),
        "v": dynamics.v.cpu(),
        "forces": dynamics.forces.cpu(),
        "listed": dynamics.list.positions.cpu(),
        "step": dynamics.step,
        "listed_at": dynamics.listed_at,
        "draw": dynamics.draw.get_state(),
    }
    new = path.with_name(path.name + ".new")
    try:
        torch.save(state, new)
        os.replace(new, path)
    except (OSError, RuntimeError) as error:
        raise WindtunnelError(
            "E946",
            f"`{path}` cannot be written: {error}",
            hint="name a folder that exists: --checkpoint run.chk",
        ) from None


def load(dynamics: Dynamics, path: Path) -> None:
    """Continue ``dynamics`` from a checkpoint of the same system and options.

    Raises:
        WindtunnelError: E947, no checkpoint, a damaged one, or one of another system.
    """
    state = _state(path)
    if state["system"] != fingerprint(dynamics) or state["dtype"] != str(dynamics.field.dtype):
        raise WindtunnelError(
            "E947",
            f"`{path}` belongs to another system or other options",
            hint="restart with the structure, precision, cutoff and replicas that it was written with",
        )
    device = dynamics.x.device
    x, v, forces, listed = (state[name].to(device) for name in ("x", "v", "forces", "listed"))
    dynamics.restore(x, v, forces, listed, state["step"], state["listed_at"])
    dynamics.draw.set_state(state["draw"])


def fingerprint(dynamics: Dynamics) -> str:
    """A hash of what the state belongs to: atoms, parameters, rules, replicas, step length and bath."""
    system, scheme = dynamics.field.system, dynamics.scheme
    digest = hashlib.sha256()
    for values in (
        system.masses,
        system.charges,
        system.sigma_nm,
        system.epsilon,
        system.terms.constraint_nm,
    ):
        digest.update(np.ascontiguousarray(values).tobytes())
    digest.update(
        repr((None if system.box_nm is None else system.box_nm.tolist(), system.nonbonded)).encode()
    )
    digest.update(repr((dynamics.field.replicas, dynamics.field.skin_nm, scheme)).encode())
    return digest.hexdigest()


def _state(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise WindtunnelError("E947", f"there is no checkpoint `{path}`", hint="check the path") from None
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError):
        raise WindtunnelError(
            "E947", f"`{path}` is no checkpoint, or a damaged one", hint="name a file that --checkpoint wrote"
        ) from None
    if not isinstance(state, dict) or set(state) != _FIELDS or state["version"] != VERSION:
        raise WindtunnelError(
            "E947", f"`{path}` is no checkpoint of this version", hint="name a file that --checkpoint wrote"
        )
    return state

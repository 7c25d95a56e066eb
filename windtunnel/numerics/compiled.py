"""The C kernels: compiled with the system's ``cc`` at first use, kept in the user's cache.

Without a compiler everything still works, in PyTorch, with the same bits, 10 to 100 times slower.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from enum import Enum
from functools import cache
from pathlib import Path

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("exact_kernel.c", "quantise_kernel.c"))
# No contraction: a product and a sum must round twice where the model says so.
_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
_TIMEOUT_S = 120


class Engine(Enum):
    """What computes: the C kernels where they can be built, or PyTorch; the bits are the same."""

    AUTO = "auto"
    COMPILED = "compiled"
    TORCH = "torch"


class Problem(ctypes.Structure):
    """``wt_problem`` of the C source."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("depth", ctypes.c_int64),
        ("fraction_bits", ctypes.c_int32),
        ("terms", ctypes.c_int32),
        ("zero_exponent", ctypes.c_int32),
        ("register_bits", ctypes.c_int32),
        ("rounding", ctypes.c_int32),
        ("promotion", ctypes.c_int32),
    )


class Operand(ctypes.Structure):
    """``wt_operand`` of the C source."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("factors", ctypes.c_void_p),
        ("batch_stride", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("column_stride", ctypes.c_int64),
        ("lowest_exponent", ctypes.c_int32),
    )


class Quantiser(ctypes.Structure):
    """``wt_quantiser`` of the C source."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("tile_rows", ctypes.c_int64),
        ("tile_columns", ctypes.c_int64),
        ("largest", ctypes.c_float),
        ("smallest_normal", ctypes.c_float),
        ("magic", ctypes.c_float),
        ("floor", ctypes.c_float),
        ("power_of_two", ctypes.c_int32),
        ("inverse_from_amax", ctypes.c_int32),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The loaded kernels; None where they cannot be built (no compiler, no writable cache).

    ``WINDTUNNEL_NO_COMPILER=1`` in the environment keeps them from being built.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or os.environ.get("WINDTUNNEL_NO_COMPILER") == "1":
        return None
    try:
        path = _cached(compiler)
        loaded = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None
    loaded.wt_exact_matmul.restype = ctypes.c_int
    loaded.wt_exact_matmul.argtypes = [ctypes.POINTER(Problem)] + [ctypes.c_int64] * 3
    loaded.wt_exact_matmul.argtypes += [ctypes.POINTER(Operand)] * 2 + [ctypes.c_void_p] * 3
    loaded.wt_quantise.restype = ctypes.c_int
    loaded.wt_quantise.argtypes = [ctypes.POINTER(Quantiser)] + [ctypes.c_void_p] * 3
    return loaded


def _cached(compiler: str) -> Path:
    folder = _cache_folder()
    target = folder / f"numerics-{_key(compiler)}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / "kernel.so"
        command = [compiler, *_FLAGS, "-shared", "-fPIC", *map(str, _SOURCES), "-o", str(built), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_S)
        os.replace(built, target)  # atomic: two processes may build at once
    return target


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "windtunnel" / "kernels"


def _key(compiler: str) -> str:
    # A home directory may be shared between machines whose "native" differs.
    sources = [source.read_bytes() for source in _SOURCES]
    parts = (*sources, " ".join((compiler, *_FLAGS)).encode(), _cpu().encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())

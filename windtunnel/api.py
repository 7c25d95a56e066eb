"""The public functions: load a recorded program, look up a chip, predict. Each is one call into its part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windtunnel.network.model import NetworkModel
from windtunnel.program import file, world_files
from windtunnel.program.program import Program
from windtunnel.results.run_result import RunResult
from windtunnel.specs.catalogue import chip as _chip
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.schema import Chip
from windtunnel.specs.targets import cluster_of, for_world, parse_target
from windtunnel.timeline.cluster_totals import predict_world
from windtunnel.timeline.predict import predict as _predict

if TYPE_CHECKING:
    from windtunnel.capture.session import Session

__all__ = ["chip", "load", "predict", "record", "save"]


def chip(name: str, overrides: Sequence[str] = ()) -> Chip:
    """The chip called ``name`` (an id or an alias, as ``windtunnel chips`` lists them).

    Args:
        overrides: numbers to replace, as ``memory_bytes_per_s=2e12``.

    Raises:
        WindtunnelError: E101, no such chip; the hint names the nearest.
    """
    return _chip(name, overrides)


def load(path: str | Path) -> Program:
    """A recorded program from a ``.wt`` file. Safe with files from strangers.

    Raises:
        WindtunnelError: E900 to E906, the file cannot be read or is not a sound program file.
    """
    return file.load(path)


def save(program: Program, path: str | Path) -> str:
    """Write a program to a ``.wt`` file and answer its content hash (SHA-256, hexadecimal).

    Raises:
        WindtunnelError: E905, the file cannot be written.
    """
    return file.save(program, path)


@contextmanager
def record(
    on: str | Chip = "mtt-s5000", *, values: bool = False, cuda_names: bool = True, **options: Any
) -> Iterator[Session]:
    """A virtual card for the code inside the block; needs PyTorch.

    Args:
        on: a chip or its name.
        values: compute with real data as the chip does, instead of shapes alone.
        cuda_names: let ``torch.cuda`` and ``"cuda"`` mean the card, as ``windtunnel run`` does.
        options: further ones of ``capture.session.Session``.

    Yields:
        The session; ``session.program()`` is what was recorded, for ``predict`` and ``save``.

    Raises:
        WindtunnelError: E101, no such chip.
    """
    from windtunnel.capture.cuda_names import CudaNames  # PyTorch takes seconds to import
    from windtunnel.capture.session import Session

    card = on if isinstance(on, Chip) else _chip(on)
    with ExitStack() as stack:
        session = stack.enter_context(Session(card, "values" if values else "shadow", **options))
        if cuda_names:
            stack.enter_context(CudaNames(session))
        yield session


def predict(
    program: Program | Sequence[Program] | str | Path,
    on: str | Chip | Cluster = "mtt-s5000",
    *,
    step: int | None = None,
    strict: bool = False,
) -> RunResult:
    """How long a step of a recorded program takes, where the time goes, and whether it fits.

    Args:
        program: a program, the programs of the ranks that were recorded together, or the path of their file.
        on: a chip, a cluster, or the name of either (``h100-sxm``, ``mtt-s5000:64``); a recording of several
            ranks takes a chip as many times as it has ranks.
        step: which recorded step, counted from 0; the last when None. Several ranks always tell the last.
        strict: refuse operations without a cost model (E512) instead of pricing them from their bytes.

    Returns:
        Times in seconds, sizes in bytes; estimates carry an 80 % interval and their sources.

    Raises:
        WindtunnelError: as ``load`` and ``chip``; E238, a cluster of another size than the recording; E5xx, an
            operation that the chip cannot run.
    """
    cluster = _cluster(on)
    ranks = _programs(program)
    if ranks[0].origin.world_size > 1:
        cluster = for_world(cluster, ranks[0].origin.world_size)
        return predict_world(ranks, cluster.chip, NetworkModel(cluster), strict=strict)
    return _predict(ranks[0], cluster.chip, step=step, strict=strict)


def _programs(program: Program | Sequence[Program] | str | Path) -> Sequence[Program]:
    if isinstance(program, (str, Path)):
        return world_files.load(program)
    return [program] if isinstance(program, Program) else program


def _cluster(on: str | Chip | Cluster) -> Cluster:
    if isinstance(on, Cluster):
        return on
    return cluster_of(on) if isinstance(on, Chip) else parse_target(on)[0]

"""Experts that get unequal shares of the tokens: how much more the busiest rank of a layer carries, as a distribution.

Every choice of an expert is a seeded draw: experts equally popular, or popularity falling as the ``-A``-th power of
rank, in another order for every layer. The ranks of an expert group wait for the busiest one in each layer, so that
its products, and the exchange before and after them, take its factor over the mean.
Not here: what recorded code does with the choices it drew (``--routing``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from windtunnel.errors import WindtunnelError
from windtunnel.network.collective import Collective, kind_of
from windtunnel.program.op import OpSpec
from windtunnel.program.program import Program
from windtunnel.program.work import Family

DRAWS = 400
_EXCHANGES = (Collective.ALL_TO_ALL, Collective.DISPATCH, Collective.COMBINE)


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """The busiest rank's load over the mean: over layers and steps, its mean and the range of eight in ten."""

    popularity: str
    mean: float
    low: float
    high: float
    seed: int

    def sentence(self) -> str:
        """For the list of what a result rests on."""
        return (
            f"experts' popularity {self.popularity}, seed {self.seed}: the busiest rank of a layer carries "
            f"{self.mean:.2f} times the mean ({self.low:.2f} to {self.high:.2f})"
        )


def drawn(choices: int, experts: int, ranks: int, popularity: str, seed: int = 0) -> ExpertLoad:
    """``choices`` of one of ``experts`` that lie in order on ``ranks``.

    Args:
        popularity: ``uniform``, or ``power:A``.

    Raises:
        WindtunnelError: E214, a popularity that cannot be read.
    """
    exponent = _exponent(popularity)
    generator = np.random.default_rng(seed)
    share = np.arange(1, experts + 1, dtype=np.float64) ** -exponent
    share /= share.sum()
    edges = np.linspace(0, experts, ranks + 1).astype(np.int64)[:-1]
    factors = []
    for _ in range(DRAWS):
        loads = np.add.reduceat(generator.multinomial(choices, generator.permutation(share)), edges)
        factors.append(float(loads.max() / loads.mean()))
    low, high = (float(np.quantile(factors, q)) for q in (0.1, 0.9))
    return ExpertLoad(popularity, float(np.mean(factors)), low, high, seed)


def load_of(program: Program, popularity: str, seed: int = 0) -> ExpertLoad | None:
    """The experts' load in a recorded rank; None where its experts are not spread over ranks. Raises E214."""
    _exponent(popularity)
    ranks = max((len(program.groups[_group(spec)].ranks) for spec, _ in _exchanges(program)), default=1)
    local, rows = 0, 0
    for spec, work in zip(program.specs, program.works, strict=True):
        if work.family is Family.GROUPED_GEMM:
            weights = [t.shape for t in spec.inputs if len(t.shape) == 3]
            local = max(local, *(shape[0] for shape in weights), 0)
            rows = max(rows, *(t.shape[0] for t in spec.inputs if len(t.shape) == 2), 0)
    if ranks < 2 or not local or not rows:
        return None
    return drawn(rows * ranks, local * ranks, ranks, popularity, seed)


def factors(program: Program, load: ExpertLoad) -> npt.NDArray[np.float64]:
    """By site: how much longer it takes under ``load``; 1 for what has nothing to do with experts."""
    by_spec = np.ones(len(program.specs))
    grouped = [work.family is Family.GROUPED_GEMM for work in program.works]
    by_spec[grouped] = load.mean
    for _, number in _exchanges(program):
        by_spec[number] = load.mean
    return by_spec[program.sites[:, 0]]


def _exponent(popularity: str) -> float:
    if popularity == "uniform":
        return 0.0
    name, _, text = popularity.partition(":")
    try:
        exponent = float(text) if name == "power" else -1.0
    except ValueError:
        exponent = -1.0
    if not 0 <= exponent <= 10:
        raise WindtunnelError(
            "E214",
            f"cannot read the experts' load `{popularity}`",
            hint="--expert-load uniform, or --expert-load power:0.5",
        )
    return exponent


def _group(spec: OpSpec) -> int:
    index = spec.attribute("group", 0)
    return index if isinstance(index, int) else 0


def _exchanges(program: Program) -> list[tuple[OpSpec, int]]:
    return [
        (spec, number)
        for number, (spec, work) in enumerate(zip(program.specs, program.works, strict=True))
        if work.family is Family.COLLECTIVE and work.kernels and kind_of(spec.name) in _EXCHANGES
    ]

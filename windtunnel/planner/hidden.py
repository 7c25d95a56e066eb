"""Expert exchange hidden behind another micro-batch's compute (DualPipe, combined one-forward-one-backward).

A stage that works on two micro-batches at once lets dispatch and combine of one run beside the kernels of the
other. What is left to see: the multiprocessors that the exchange holds meanwhile, and what of it is longer than
the compute. arXiv 2412.19437, section 3.2.1; checked against the published trace of such a pair on H800.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from windtunnel.network.collective import Collective, kind_of
from windtunnel.network.model import NetworkModel
from windtunnel.program.program import Program
from windtunnel.program.work import Family
from windtunnel.results.run_result import StepParts

_EXPERT = (Collective.DISPATCH, Collective.COMBINE, Collective.ALL_TO_ALL)  # recipes send nothing else to all


def expert_exchange(program: Program, network: NetworkModel) -> tuple[float, float]:
    """Seconds of dispatch and combine in a program, and the mean share of multiprocessors they hold."""
    counts = np.bincount(program.sites[program.events, 0], minlength=len(program.specs))
    seconds = held = 0.0
    for spec, work, count in zip(program.specs, program.works, counts.tolist(), strict=True):
        if work.family is not Family.COLLECTIVE or not work.kernels or kind_of(spec.name) not in _EXPERT:
            continue
        group = program.groups[int(str(spec.attribute("group", 0)))]
        time = network.recorded_time(spec, group, program.origin.rank)
        seconds += count * time.seconds
        held += count * time.seconds * time.sm_share
    return seconds, held / seconds if seconds else 0.0


def hidden(parts: StepParts, exchange_s: float, held: float) -> StepParts:
    """Parts of a chunk whose exchange of ``exchange_s`` runs beside the compute of another micro-batch."""
    beside = min(exchange_s, parts.compute_s)
    # while the share h is held, compute advances at 1 - h: what it loses is made up for at the full rate
    return replace(
        parts,
        compute_s=parts.compute_s + beside * held / (1 - held),
        exposed_comm_s=max(0.0, parts.exposed_comm_s - exchange_s) + exchange_s - beside,
    )

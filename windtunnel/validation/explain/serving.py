"""Why a serving row is predicted as it is: the operations of the step that it spends its time in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from windtunnel.network.model import NetworkModel
from windtunnel.program.count import work_of
from windtunnel.program.program import Program
from windtunnel.program.work import Work
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.serving import forward_step
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.kernel_library import library_of
from windtunnel.serving.uncertainty import width_of
from windtunnel.validation.explain.operations import OpTotal, StepWhy, explained, group_of
from windtunnel.validation.explain.points import Point


def explain_serving(
    found: Deployment, batch: Batch, assumed: Sequence[str], points: Sequence[Point], *, top: int
) -> StepWhy:
    """One step of ``batch`` on the deployment: its ``top`` operations, each beside the nearest measured point."""
    step, chip = found.step, found.cluster.chip
    program = forward_step(step.model, replace(found.layout, graphs=False), [batch])
    totals = _totals(found, program)
    seconds = sum(total.seconds for total in totals)
    width = width_of(found, batch)

    def library_for(work: Work) -> str:
        return library_of(step.prices.stack, work, chip)

    kind = "decodes" if batch.decodes else "prompts"
    context = f" behind {batch.context:,} tokens of context" if batch.context else ""
    notes = (
        f"one step: {batch.sequences} sequences, {kind} {batch.new:,} tokens each{context}; {found.words()}",
        f"sums its operations: {len(program.events):,} of them, one after another",
        *(f"assumed: {text}" for text in assumed),
    )
    sources = tuple((str(source), share) for source, share in width.shares)
    return StepWhy(
        chip.name, seconds, seconds * width.low, seconds * width.high, sources,
        explained(totals, chip, NetworkModel(found.cluster), points, top=top, library_for=library_for),
        len(totals), notes,
    )  # fmt: skip


def _totals(found: Deployment, program: Program) -> list[OpTotal]:
    counts = Counter(program.site(event).spec for event in program.events.tolist())
    totals = []
    for number, count in counts.items():
        spec = program.specs[number]
        seconds = found.step.prices.total([spec]).device
        if seconds:
            totals.append(OpTotal(spec, work_of(spec), group_of(program, spec), count, count * seconds))
    return totals

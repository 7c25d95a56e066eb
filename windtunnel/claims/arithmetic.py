"""The operations that a prediction adds up, largest first: what ``--why`` prints below the totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache

from windtunnel.claims.prices import card, plan
from windtunnel.network.model import NetworkModel
from windtunnel.planner.space import Space
from windtunnel.planner.training import TrainingPredictor
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Layout, Precision, Recompute, Sharding
from windtunnel.recipes.serving import forward_step
from windtunnel.recipes.training import training_step
from windtunnel.serving.deployment import Deployment
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

SHOWN = 8
"""Operations that are printed one by one; the rest is summed."""


@cache
def kernel_lines(
    model: str,
    cards: int,
    global_batch: int,
    sequence: int,
    space: Space | None,
    chip: str,
    precision: Precision = Precision.BF16,
) -> tuple[str, ...]:
    """The operations of the busiest stage of the best layout of a training step; ``space``: None searches all."""
    found = plan(model, chip, cards, global_batch, sequence, precision, space).best
    space = space or Space()
    if found is None:
        return ()
    layout = Layout(
        cards=cards,
        global_batch=global_batch,
        sequence=sequence,
        micro_batch=found.micro_batch,
        tensor=found.tensor,
        pipeline=found.pipeline,
        chunks=found.chunks,
        context=found.context,
        expert=found.expert,
        schedule=found.schedule or "1f1b",
        precision=precision,
        recompute=Recompute(found.recompute),
        sharding=Sharding(found.sharding),
        overlap_experts=space.overlap_experts and found.expert > 1,
        imbalance=space.imbalance,
    )
    cluster = cluster_of(card(chip), cards)
    predictor = TrainingPredictor(cluster.chip, NetworkModel(cluster))
    step = predictor.predict(training_step(architecture_of(shipped_model(model)), layout))
    seconds: dict[OpSpec, float] = defaultdict(float)
    times: dict[OpSpec, int] = defaultdict(int)
    for program_time in step.busiest:
        program = program_time.program
        for event in program.events.tolist():
            number = program.site(event).spec
            seconds[program.specs[number]] += program_time.device_s[number]
            times[program.specs[number]] += 1
    return _lines(
        ((spec, times[spec], seconds[spec]) for spec in seconds),
        f"{chip}, {model} in {precision}: busiest stage, one step",
    )


def serving_lines(found: Deployment, batch: Batch, what: str) -> tuple[str, ...]:
    """The operations of one forward step of one rank."""
    program = forward_step(found.step.model, found.layout, [batch])
    times: dict[OpSpec, int] = defaultdict(int)
    for event in program.events.tolist():
        times[program.specs[program.site(event).spec]] += 1
    priced = ((spec, count, count * found.step.prices.total([spec]).device) for spec, count in times.items())
    return _lines(priced, what)


def _lines(found: Iterable[tuple[OpSpec, int, float]], what: str) -> tuple[str, ...]:
    ordered = sorted(found, key=lambda entry: -entry[2])
    whole = sum(seconds for _, _, seconds in ordered) or 1.0
    lines = [f"{what}: {whole * 1e3:,.2f} ms of operations one after another, of which"]
    for spec, count, seconds in ordered[:SHOWN]:
        lines.append(
            f"{count:,} × {_words(spec)}: {seconds * 1e3:,.2f} ms, {seconds / whole:.0%}{_rate(spec, count, seconds)}"
        )
    rest = sum(seconds for _, _, seconds in ordered[SHOWN:])
    lines.append(f"{max(0, len(ordered) - SHOWN)} other kinds: {rest * 1e3:,.2f} ms, {rest / whole:.0%}")
    return tuple(lines)


def _words(spec: OpSpec) -> str:
    name = spec.name.removeprefix("windtunnel.").removeprefix("aten.").removesuffix(".default")
    shapes = " · ".join("×".join(f"{n}" for n in one.shape) for one in spec.inputs[:2] if one.shape)
    dtype = spec.inputs[0].dtype if spec.inputs else ""
    return f"{name} {shapes} {dtype}".strip()


def _rate(spec: OpSpec, count: int, seconds: float) -> str:
    flops = work_of(spec).flops
    return f", {count * flops / seconds / 1e12:,.0f} TFLOP/s" if flops and seconds else ""

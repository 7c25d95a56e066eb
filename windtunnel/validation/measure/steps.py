"""Whole training steps of a small decoder: forward, backward, optimizer, and the peak of reserved memory.

Written without anything newer than PyTorch 2.11. The same code runs on a real card, on the CPU, and on a virtual card,
where it gives the predictions that `validate` compares with the rows of ``step_torch``.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from windtunnel.validation.measure.blocks import BlockShape, Decoder
from windtunnel.validation.measure.cases import Grid, Row
from windtunnel.validation.measure.timer import Timer

WARM_UPS = 2
ITERATIONS = 5
TABLE = "step_torch"


@dataclass(frozen=True, slots=True)
class StepCase:
    """One configuration. ``mode``: eager, or graph (the whole step captured once and replayed)."""

    block: str
    shape: BlockShape
    batch: int
    sequence: int
    mode: str


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What was measured; None for what the mode or device does not tell."""

    forward_seconds: float | None
    backward_seconds: float | None
    optimizer_seconds: float | None
    step_seconds: float | None
    peak_reserved_gib: float | None


def step_cases(grid: Grid, on_card: bool) -> Iterator[StepCase]:
    """The configurations to be measured. Graphs need a card."""
    dense = (
        BlockShape(4096, 32, 8, 128, 14336, 2, 32000)
        if grid.full
        else BlockShape(256, 4, 2, 64, 512, 2, 1000)
    )
    sparse = (
        BlockShape(2048, 16, 4, 128, 768, 2, 32000, experts=64, top_k=8)
        if grid.full
        else BlockShape(256, 4, 2, 64, 128, 2, 1000, experts=8, top_k=2)
    )
    for block, shape in (("llama", dense), ("moe", sparse)):
        for batch, sequence in ((1, 2048), (4, 2048), (2, 8192)) if grid.full else ((2, 128),):
            for mode in ("eager", "graph") if on_card else ("eager",):
                yield StepCase(block, shape, batch, sequence, mode)


def row_of(case: StepCase, gpu: str) -> Row:
    """The row of a case without its measurements."""
    sizes = {name: str(value) for name, value in asdict(case.shape).items()}
    return {
        "gpu": gpu, "block": case.block, **sizes, "batch": str(case.batch), "sequence": str(case.sequence),
        "dtype": "bf16", "mode": case.mode, "torch_version": torch.__version__,
    }  # fmt: skip


def measure_step(case: StepCase, timer: Timer) -> StepTimes:
    """Build the model, train some steps and time them. Raises what PyTorch raises, out of memory above all."""
    device = timer.device
    gc.collect()
    if timer.backend is not None:
        timer.backend.empty_cache()
        timer.backend.reset_peak_memory_stats()
    torch.manual_seed(0)
    with torch.device(device):
        model = Decoder(case.shape, case.sequence).to(torch.bfloat16)
    graphed = case.mode == "graph"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True, capturable=graphed)
    ids = torch.randint(0, case.shape.vocabulary, (case.batch, case.sequence), device=device)
    step = _Step(model, optimizer, ids, keep_gradients=graphed)
    times = _graph(step, timer) if graphed else _eager(step, timer)
    peak = None if timer.backend is None else timer.backend.max_memory_reserved() / 2**30
    return StepTimes(*times, peak)


class _Step:
    """The three phases of one step; ``losses`` keeps the loss between them."""

    def __init__(
        self, model: Decoder, optimizer: torch.optim.Optimizer, ids: torch.Tensor, keep_gradients: bool
    ) -> None:
        self.model, self.optimizer, self.ids = model, optimizer, ids
        self.loss: torch.Tensor | None = None
        self._keep = keep_gradients

    def forward(self) -> None:
        self.loss = self.model(self.ids, self.ids)

    def backward(self) -> None:
        assert self.loss is not None
        self.loss.backward()  # type: ignore[no-untyped-call]
        self.loss = None

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=not self._keep)

    def whole(self) -> None:
        self.forward()
        self.backward()
        self.update()


Phases = tuple[float | None, float | None, float | None, float | None]


def _eager(step: _Step, timer: Timer) -> Phases:
    for _ in range(WARM_UPS):
        step.whole()
    works = (step.forward, step.backward, step.update)
    phases = [[timer.once_s(work) for work in works] for _ in range(ITERATIONS)]
    forward, backward, update = (statistics.median(column) for column in zip(*phases, strict=True))
    whole = statistics.median(timer.once_s(step.whole) for _ in range(ITERATIONS))
    return forward, backward, update, whole


def _graph(step: _Step, timer: Timer) -> Phases:
    side = timer.backend.Stream()  # where PyTorch's notes on graphs want the warm-up
    side.wait_stream(timer.backend.current_stream())
    with timer.backend.stream(side):
        for _ in range(WARM_UPS):
            step.whole()
    timer.backend.current_stream().wait_stream(side)
    timer.synchronize()
    replay = timer.graphed(step.whole)
    if replay is None:
        raise RuntimeError("the step cannot be captured as a graph")
    whole = statistics.median(timer.once_s(replay) for _ in range(ITERATIONS))
    return None, None, None, whole

"""One recording in this process: installs the card and its hooks, and hands out the program."""

from __future__ import annotations

import importlib
import warnings
from types import TracebackType
from typing import Any

from windtunnel.capture import (
    backend,
    compile,
    data_moves,
    flex,
    import_path,
    lazy_modules,
    module,
    module_moves,
    patches,
    pinned,
    recurrent,
    registrations,
    storage,
    streams,
    triton_kernels,
)
from windtunnel.capture.host_init import HostInit
from windtunnel.capture.module import module as card_module
from windtunnel.capture.modules import ModuleTracker
from windtunnel.capture.recorder import Recorder
from windtunnel.capture.state import Mode, State
from windtunnel.capture.steps import StepTracker
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program.program import Origin, Outcome, Program
from windtunnel.specs.schema import Chip


class Session:
    """Records what a script does on a virtual card.

    Use as a context manager, or call ``install`` and ``remove``. The device registration itself stays in
    the process; a later session starts with empty tables.

    Args:
        chip: the card.
        mode: ``shadow`` (no data) or ``values``.
        stop_after: raise ``EnoughSteps`` in the script after so many complete steps.
        routing: how router indices are drawn, see ``handlers/drawing.py``.
        strict: refuse instead of pretending.
        kernels: offer virtual kernels under the names of packages that are not installed.
    """

    def __init__(
        self,
        chip: Chip,
        mode: Mode | str = Mode.SHADOW,
        *,
        stop_after: int | None = None,
        routing: str = "balanced",
        seed: int = 0,
        strict: bool = False,
        oom_continue: bool = False,
        kernels: bool = True,
    ) -> None:
        self.chip = chip
        self.strict = strict
        self.kernels = kernels
        self.world_size, self.rank = 1, 0
        self.state = State(chip, Mode(mode), routing, seed, strict=strict, oom_continue=oom_continue)
        self.steps = StepTracker(self.recorder, stop_after)
        self._host_init = HostInit()
        self.modules = ModuleTracker(self.state.context, self.steps.enter_model, self.steps.leave_model)

    @property
    def recorder(self) -> Recorder:
        """Where everything is written."""
        return self.state.recorder

    @property
    def clock(self) -> Any:
        """The virtual clock."""
        return self.state.clock

    def install(self) -> Session:
        """Make the card this process's accelerator and start recording."""
        _register_once()
        VirtualTensor.state = self.state
        streams.reset()
        module.set_device_count(1)
        self.state.on_embedding = self.steps.note_tokens
        self.state.on_backward_end = self.steps.note_backward
        if self.kernels:
            import_path.install()
        if self.state.mode is Mode.SHADOW:
            self._host_init.install()
        self.modules.install()
        self.steps.install()
        return self

    def join_world(self, world_size: int, rank: int = 0, cards_per_node: int | None = None) -> None:
        """Stand for one rank of a world: environment as ``torchrun`` sets it, collectives recorded."""
        from windtunnel.capture.distributed import join  # torch.distributed takes a while to import

        per_node = min(world_size, cards_per_node or self.chip.cards_per_node)
        join.enter(self.state, world_size, rank, per_node)
        module.set_device_count(per_node, rank % per_node)
        self.steps.before_optimizer = join.before_optimizer
        self.world_size, self.rank = world_size, rank

    def remove(self) -> None:
        """Stop recording. Tensors that still live stay usable."""
        import_path.remove()
        self._host_init.remove()
        self.modules.remove()
        self.steps.remove()

    def __enter__(self) -> Session:
        return self.install()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def program(
        self,
        script: str = "",
        argv: tuple[str, ...] = (),
        outcome: Outcome = Outcome.COMPLETE,
        outcome_detail: str = "",
    ) -> Program:
        """The recording so far."""
        self.recorder.steps = self.steps.marks()
        self.steps.mark_memory()
        origin: Origin = self.recorder.origin(
            script=script,
            argv=argv,
            chip=self.chip.name,
            mode=str(self.state.mode),
            outcome=outcome,
            outcome_detail=outcome_detail,
            routing=self.state.routing,
            parameters=self.steps.parameters,
            world_size=self.world_size,
            rank=self.rank,
            allow_tf32=self.state.told_tf32,
        )
        return self.recorder.program(origin)


_registered = False


def _register_once() -> None:
    global _registered
    if _registered:
        return
    # forward-mode derivatives are scripted when first used, and a patched function cannot be scripted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")
    backend.register(card_module)
    registrations.register_kernels()
    recurrent.register()
    storage.patch_untyped_storage()
    pinned.patch_tensor()
    patches.install()
    compile.install()
    module_moves.install()
    data_moves.install()
    lazy_modules.install()
    triton_kernels.install()
    flex.install()
    _registered = True

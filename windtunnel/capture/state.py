"""Everything the virtual card knows while a script runs: one object, reachable from every card tensor."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch

from windtunnel.capture import handlers
from windtunnel.capture.arithmetic import Arithmetic, default_tf32
from windtunnel.capture.clock import Clock
from windtunnel.capture.context import Context
from windtunnel.capture.describe import OpInfo, op_spec
from windtunnel.capture.dispatch import Dispatcher
from windtunnel.capture.live_memory import LiveMemory
from windtunnel.capture.meta import meta_of
from windtunnel.capture.policy import Policy
from windtunnel.capture.recorder import Recorder
from windtunnel.capture.tensor import VirtualTensor, fresh, wrap
from windtunnel.program import marks
from windtunnel.specs.schema import Chip

SMALL_INTEGERS = 1 << 22
"""Integer and boolean tensors up to this many elements keep their values in shadow mode: ids, positions,
masks, offsets and router indices steer control flow and the shapes of what follows."""

SMALL_FLOATS = 2048
"""Float tensors up to this many elements keep values that were given, not computed from data-less ones:
scalars, schedules, betas."""


class Mode(StrEnum):
    """How tensors behave."""

    SHADOW = "shadow"  # no data, any size of model
    VALUES = "values"  # data on the CPU, computed as the chip does


class State:
    """One recording on one chip."""

    def __init__(
        self,
        chip: Chip,
        mode: Mode = Mode.SHADOW,
        routing: str = "balanced",
        seed: int = 0,
        *,
        strict: bool = False,
        oom_continue: bool = False,
    ) -> None:
        self.chip = chip
        self.mode = mode
        self.routing = routing
        self.seed = seed
        self.context = Context()
        self.recorder = Recorder(self.context)
        self.ledger = self.recorder.ledger
        self.policy = Policy(self)
        self.dispatch = Dispatcher(self)
        self.meta_device = torch.device("meta")
        self.host_device = torch.device("cpu")
        self.draws = torch.Generator().manual_seed(seed)
        self.strict = strict
        self.allow_tf32 = default_tf32(chip)  # the script's switches change it
        self.told_tf32: bool | None = None  # what the script's switches said; None: left to each chip
        self.clock = Clock(self)
        self.memory = LiveMemory(self, oom_continue)
        self.on_embedding: Callable[[torch.Tensor], None] | None = None
        self.on_backward_end: Callable[[], None] | None = None
        handlers.install(self.dispatch)
        self.arithmetic: Arithmetic | None = None
        if self.mode is Mode.VALUES:
            self.arithmetic = Arithmetic(self)
            for overload, kernel in self.arithmetic.kernels().items():
                self.dispatch.arithmetic[id(overload)] = kernel

    def keeps_values(self, tensor: torch.Tensor) -> bool:
        """Whether a result with data keeps them."""
        return not tensor.is_meta and self.keeps(tensor.dtype, tensor.numel())

    def keeps(self, dtype: torch.dtype, numel: int) -> bool:
        """Whether tensors of this kind hold values."""
        if self.mode is Mode.VALUES:
            return True
        if dtype.is_floating_point or dtype.is_complex:
            return numel <= SMALL_FLOATS
        return numel <= SMALL_INTEGERS

    def factory_device(self, dtype: torch.dtype | None, numel: int) -> torch.device:
        """Where a factory function makes its result: on the CPU where values are kept."""
        kept = self.keeps(dtype or torch.get_default_dtype(), numel)
        return self.host_device if kept else self.meta_device

    def card_tensor(self, plain: torch.Tensor) -> VirtualTensor:
        """A host tensor on the card, without a recorded copy; its values are kept if they may be."""
        return fresh(meta_of(plain), plain if self.keeps_values(plain) else None)

    def emit_result(
        self, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor
    ) -> VirtualTensor:
        """Record an operation whose result is known, and return it as a card tensor."""
        place = self.recorder.reserve()
        out = wrap(result)
        self.recorder.fill(place, op_spec(info, args, kwargs, out))
        return out

    def wait_for_host_read(self, tensor: torch.Tensor) -> None:
        """The host reads something of a tensor (a mask's count) and waits for it."""
        self.recorder.emit(marks.ITEM, (meta_of(tensor),))

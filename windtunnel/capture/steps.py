"""Where steps begin and end: at ``optimizer.step()``, or else at each outermost forward.

Scripts with several optimizers (GANs, Muon + AdamW) step each once per iteration; the step then ends with
the last of them.
"""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import optimizer as torch_optimizer

from windtunnel.capture.recorder import Recorder
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program.program import Category, StepKind, StepMark

_MESSAGES = ("c10d.send", "c10d.recv")


class EnoughSteps(BaseException):
    """Raised in the script when the steps asked for are recorded."""


@dataclass(slots=True)
class _Forward:
    """One outermost module call."""

    model: str
    begin: int
    end: int
    tokens: int = 0
    per_sequence: int = 0
    samples: int = 0
    num_ops: int = 0


class StepTracker:
    """Collects forwards and optimizer steps; ``marks`` turns them into steps."""

    def __init__(self, recorder: Recorder, stop_after: int | None = None) -> None:
        self.recorder = recorder
        self.stop_after = stop_after
        self.before_optimizer: Callable[[], None] | None = None
        self.on_forward: Callable[[torch.nn.Module], None] | None = None  # before an outermost call
        self._forwards: list[_Forward] = []
        self._optimizer_steps: list[tuple[int, int]] = []  # (optimizer id, event after it)
        self._backward_ends: list[int] = []
        self._calls: Counter[str] = Counter()
        self._open: _Forward | None = None
        self._handles: list[Any] = []
        self._trains = False  # an optimizer was made: forwards before its first step are no steps
        self._optimizer_init: Any = None
        self._roots: dict[int, weakref.ref[torch.nn.Module]] = {}
        self._elements: dict[int, int] = {}  # of each parameter met

    # ---- called by hooks -------------------------------------------------

    def enter_model(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        """An outermost module call begins."""
        if self.stop_after is not None and self._is_enough(type(module).__name__, self.stop_after):
            raise EnoughSteps
        known = self._roots.get(id(module))
        if known is None or known() is not module:
            self._meet(module)
        if self.on_forward is not None:
            self.on_forward(module)
        self._mark(args, Category.INPUT)
        leading = next((a for a in args if isinstance(a, torch.Tensor) and a.dim()), None)
        samples = int(leading.shape[0]) if leading is not None else 0
        begin = len(self.recorder.events)
        self._open = _Forward(type(module).__name__, begin, begin, samples=samples)

    def leave_model(self, module: torch.nn.Module) -> None:
        """An outermost module call ends."""
        if self._open is not None:
            self._open.end = len(self.recorder.events)
            self._open.num_ops = self._open.end - self._open.begin
            self._forwards.append(self._open)
            self._calls[self._open.model] += 1
            self._open = None

    def note_tokens(self, indices: torch.Tensor) -> None:
        """Ids are embedded; the first embedding of a forward counts its tokens."""
        forward = self._open
        if forward is not None and not forward.tokens:
            forward.tokens = int(indices.numel())
            forward.per_sequence = int(indices.shape[-1]) if indices.dim() else 1
            if indices.dim() > 1:
                forward.samples = int(indices.shape[0])

    def note_backward(self) -> None:
        """A backward pass ended: what it left in ``.grad`` are gradients."""
        for parameter in self._parameters():
            if isinstance(parameter.grad, VirtualTensor):
                self.recorder.ledger.mark_new(parameter.grad.store, Category.GRADIENT)
        self._backward_ends.append(len(self.recorder.events))

    def install(self) -> None:
        """Hook every optimizer of the process."""
        register_pre = torch_optimizer.register_optimizer_step_pre_hook
        register_post = torch_optimizer.register_optimizer_step_post_hook
        self._handles = [register_pre(self._before_step), register_post(self._after_step)]
        start = self._optimizer_init = torch_optimizer.Optimizer.__init__

        def init(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            self._trains = True
            start(optimizer, *args, **kwargs)

        torch_optimizer.Optimizer.__init__ = functools.wraps(start)(init)  # type: ignore[method-assign,assignment]

    def remove(self) -> None:
        """Undo ``install``."""
        for handle in self._handles:
            handle.remove()
        if self._handles:
            torch_optimizer.Optimizer.__init__ = self._optimizer_init  # type: ignore[method-assign]
        self._handles = []

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self.before_optimizer is not None:
            self.before_optimizer()
        ledger = self.recorder.ledger
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if isinstance(parameter, VirtualTensor):
                    ledger.mark(parameter.store, Category.PARAMETER)
                    if isinstance(parameter.grad, VirtualTensor):
                        ledger.mark(parameter.grad.store, Category.GRADIENT)
        self.recorder.context.in_optimizer = True

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.recorder.context.in_optimizer = False
        for values in optimizer.state.values():
            for value in values.values() if isinstance(values, dict) else ():
                if isinstance(value, VirtualTensor):
                    self.recorder.ledger.mark(value.store, Category.OPTIMIZER_STATE)
        self._optimizer_steps.append((id(optimizer), len(self.recorder.events)))

    def _meet(self, module: torch.nn.Module) -> None:
        """An outermost module is called for the first time: its parameters are there now."""
        self._roots[id(module)] = weakref.ref(module)
        parameters = [p for p in torch.nn.Module.parameters(module) if isinstance(p, VirtualTensor)]
        for parameter in parameters:
            self.recorder.ledger.mark(parameter.store, Category.PARAMETER)
            self._elements.setdefault(id(parameter), int(parameter.meta.numel))
        self._mark(tuple(torch.nn.Module.buffers(module)), Category.PARAMETER)

    def _mark(self, tensors: tuple[Any, ...], category: Category) -> None:
        for tensor in tensors:
            if isinstance(tensor, VirtualTensor):
                self.recorder.ledger.mark_new(tensor.store, category)

    def mark_memory(self) -> None:
        """Say which storages hold parameters now: ``.to()`` and sharding replace them after the first call."""
        for parameter in self._parameters():
            self.recorder.ledger.mark(parameter.store, Category.PARAMETER)

    def roots(self) -> list[torch.nn.Module]:
        """The outermost modules called so far that still live, in the order they were met."""
        return [root for root in (known() for known in self._roots.values()) if root is not None]

    @property
    def trains(self) -> bool:
        """Whether an optimizer was made."""
        return self._trains

    def _parameters(self) -> list[VirtualTensor]:
        return [
            parameter
            for root in self.roots()
            for parameter in torch.nn.Module.parameters(root)
            if isinstance(parameter, VirtualTensor)
        ]

    @property
    def parameters(self) -> int:
        """Elements of all parameters of the outermost modules that were called."""
        return sum(self._elements.values())

    # ---- answers -----------------------------------------------------------

    def complete_steps(self) -> int:
        """Steps complete so far."""
        if self._optimizer_steps:
            return len(self._training_ends())
        return 0 if self._trains else max(self._calls.values(), default=0)

    def _is_enough(self, model: str, wanted: int) -> bool:
        """Whether the next call of ``model`` begins a step too many. A loss module called in between is no
        new step: the backward pass of the last one is still to come."""
        if self._optimizer_steps or self._trains:
            return self.complete_steps() >= wanted
        return self._calls[model] >= wanted

    def marks(self) -> list[StepMark]:
        """Every complete step, in order."""
        if self._optimizer_steps:
            return self._training_marks()
        return self._inference_marks()

    def _training_ends(self) -> list[int]:
        """Events after which an iteration is complete: its last distinct optimizer has stepped."""
        seen: list[int] = []
        for optimizer, _ in self._optimizer_steps:
            if optimizer in seen:
                break
            seen.append(optimizer)
        last = seen[-1]
        return [end for optimizer, end in self._optimizer_steps if optimizer == last]

    def _training_marks(self) -> list[StepMark]:
        result = []
        first = self._first_message(self._forwards[0].begin) if self._forwards else 0
        begin = min(first, self._optimizer_steps[0][1])
        for end in self._training_ends():
            inside = [f for f in self._forwards if begin <= f.begin < end]
            result.append(
                StepMark(
                    StepKind.TRAIN,
                    begin,
                    end,
                    tokens=sum(f.tokens for f in inside),
                    samples=_samples(inside),
                    model=_main_model(inside),
                )
            )
            begin = end
        return result

    def _first_message(self, forward: int) -> int:
        """Where the first step begins: a later pipeline stage receives its input before its first forward.

        Later steps begin where the one before ends, so what is received belongs to them.
        """
        specs, events = self.recorder.specs, self.recorder.events
        messages = (
            place
            for place in range(forward)
            if events[place] >= 0 and specs[events[place]].name.startswith(_MESSAGES)
        )
        return next(messages, forward)

    def _inference_marks(self) -> list[StepMark]:
        main = _main_model(self._forwards)
        calls = [f for f in self._forwards if f.model == main]
        result = []
        for index, call in enumerate(calls):
            limit = calls[index + 1].begin if index + 1 < len(calls) else len(self.recorder.events)
            ends = [end for end in self._backward_ends if call.end <= end <= limit]
            kind = _kind(call, trained=bool(ends))
            result.append(
                StepMark(kind, call.begin, ends[-1] if ends else call.end, call.tokens, call.samples, main)
            )
        return result


def _kind(call: _Forward, trained: bool) -> StepKind:
    if trained:
        return StepKind.TRAIN
    if call.tokens == 0:
        return StepKind.FORWARD
    return StepKind.PREFILL if call.per_sequence > 1 else StepKind.DECODE


def _main_model(forwards: list[_Forward]) -> str:
    """The class whose outermost calls issue most operations: not the loss module."""
    weight: dict[str, int] = {}
    for forward in forwards:
        weight[forward.model] = weight.get(forward.model, 0) + forward.num_ops
    return max(weight, key=lambda model: weight[model]) if weight else ""


def _samples(forwards: list[_Forward]) -> int:
    main = _main_model(forwards)
    return sum(f.samples for f in forwards if f.model == main)

"""What an unmodified training script is watched by: its backward calls, optimizers and outermost modules.

The loss of a step is the sum of the scalars on which ``backward()`` was called since the step before; a step
ends where the first optimizer of the script steps. Gradients are taken when a backward call returns, before
anything clips them, and less the factor of a ``GradScaler``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.amp import grad_scaler
from torch.optim import optimizer as torch_optimizer

from windtunnel.capture.session import Session
from windtunnel.capture.tensor import VirtualTensor

Gradients = dict[str, torch.Tensor]


class Instruments:
    """Losses and gradient norms of one run.

    Attributes:
        on_begin: called with the number of a step and the model before its first forward.
        on_end: called with the loss of a step once its gradients are complete, before the optimizer steps.
        keep_gradients: whether ``gradients`` holds those of the last backward call.
        namespace: the script's own names.
        elements: of all parameters, after the first step.
        notes: what was changed, one line each.
    """

    def __init__(self, session: Session) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.on_begin: Callable[[int, torch.nn.Module], None] | None = None
        self.on_end: Callable[[int, float], None] | None = None
        self.keep_gradients = False
        self.gradients: Gradients = {}
        self.namespace: dict[str, Any] = {}
        self.notes: set[str] = set()
        self.elements = 0
        self._session = session
        self._roots: list[torch.nn.Module] = []
        self._begun = -1
        self._loss, self._norm, self._saw_loss = 0.0, math.nan, False
        self._first_optimizer: int | None = None
        self._scale = 1.0
        self._scaled: dict[int, tuple[Any, Any]] = {}

    def install(self) -> None:
        """Watch, to the end of the process."""
        self._session.steps.on_forward = self._forward
        self.watch_backward()
        torch_optimizer.register_optimizer_step_pre_hook(lambda optimizer, *_: self._step(optimizer))
        self._watch_scaler()
        self._one_process_loaders()

    def watch_backward(self) -> None:
        """Once more, where someone has replaced ``torch.autograd.backward`` since."""
        inner: Any = torch.autograd.backward

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
            for root in roots:
                if root.numel() == 1:
                    self._add_loss(root)
            out = inner(tensors, *args, **kwargs)
            self._after_backward()
            return out

        torch.autograd.backward = backward

    def parameters(self) -> dict[str, torch.Tensor]:
        """Every parameter of the outermost modules called so far, by name."""
        found: dict[str, torch.Tensor] = {}
        known: set[int] = set()
        for root in self._roots:
            for name, parameter in root.named_parameters():
                if id(parameter) not in known:
                    known.add(id(parameter))
                    found[f"{type(root).__name__}.{name}" if name in found else name] = parameter
        return found

    def model(self) -> torch.nn.Module | None:
        """The outermost module with the most parameters; the first of equals."""
        return max(self._roots, key=lambda root: sum(p.numel() for p in root.parameters()), default=None)

    def _forward(self, module: torch.nn.Module) -> None:
        step = len(self.losses)
        if not self._session.steps.trains or not torch.is_grad_enabled() or self._begun == step:
            return
        self._begun = step
        self._roots = self._session.steps.roots()  # held: the script may drop its model when it ends
        self.namespace = vars(sys.modules["__main__"])
        if self.on_begin is not None:
            self.on_begin(step, module)

    def _add_loss(self, root: torch.Tensor) -> None:
        scaled, plain = self._scaled.get(id(root), (None, None))
        self._loss += _number(plain if scaled is root else root)
        self._saw_loss = True

    def _after_backward(self) -> None:
        squares = []
        kept: Gradients = {}
        for name, parameter in self.parameters().items():
            values = _host(parameter.grad)
            if values is None:
                continue
            squares.append(float(values.double().square().sum()))
            if self.keep_gradients:
                kept[name] = values.detach().float() / self._scale
        self._norm = (
            math.sqrt(math.fsum(squares)) / self._scale if all(map(math.isfinite, squares)) else math.inf
        )
        self.gradients = kept

    def _step(self, optimizer: Any) -> None:
        if self._first_optimizer is None:
            self._first_optimizer = id(optimizer)
        if id(optimizer) != self._first_optimizer or not self._saw_loss:
            return
        if self.on_end is not None:
            self.on_end(len(self.losses), self._loss)
        if not self.losses:
            self.elements = sum(parameter.numel() for parameter in self.parameters().values())
        self.losses.append(self._loss)
        self.norms.append(self._norm)
        self._loss, self._saw_loss = 0.0, False
        self._scaled.clear()

    def _watch_scaler(self) -> None:
        """A scaler's factor is no part of the loss, and a step that it skips is one all the same."""
        scaler: Any = grad_scaler.GradScaler
        scale, step = scaler.scale, scaler.step

        def scaled(this: Any, outputs: Any) -> Any:
            result = scale(this, outputs)
            if isinstance(outputs, torch.Tensor):
                self._scale = float(this.get_scale())
                self._scaled[id(result)] = (result, outputs)
            return result

        def stepped(this: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            self._step(optimizer)
            return step(this, optimizer, *args, **kwargs)

        scaler.scale, scaler.step = scaled, stepped

    def _one_process_loaders(self) -> None:
        """Data loaders work in the script's process: worker processes could not follow a step taken twice."""
        loader: Any = torch.utils.data.DataLoader
        start = loader.__init__

        def init(this: Any, *args: Any, **kwargs: Any) -> None:
            if kwargs.get("num_workers"):
                self.notes.add("data loaders: num_workers taken as 0, so that every run reads the same order")
                for name in ("num_workers", "prefetch_factor", "persistent_workers", "timeout"):
                    kwargs.pop(name, None)
                kwargs.pop("multiprocessing_context", None)
            start(this, *args, **kwargs)

        loader.__init__ = init


def _host(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return tensor.host_values if isinstance(tensor, VirtualTensor) else tensor


def _number(tensor: torch.Tensor) -> float:
    values = _host(tensor)
    return math.nan if values is None else float(values.detach())

"""What data-less tensors answer when the script asks for a value. All of it is listed after the run.

Floats answer 1.0 (a loss that is printed), booleans False (``mask.any()`` in ``trunc_normal_``) unless a
predicate on finite numbers says otherwise, integers are refused: they steer control flow. Only a count of
true booleans (an accuracy that is printed) reads as 0. ``assume`` overrides. Router indices are drawn.
Tensors copied to the host follow the same rule; what is stored, not read (large tensors, bytes), becomes zeros.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.describe import OpInfo
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError
from windtunnel.program.program import NoticeKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from windtunnel.capture.state import State

Answer = bool | int | float

_READ_LIMIT = 1 << 20
"""More integers than this are stored (a packed weight), not read one by one by a script."""


class Policy:
    """Answers for one ``State``."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._assumed: list[Answer] = []

    @contextmanager
    def assume(self, answer: Answer) -> Iterator[None]:
        """Inside the block every data-less value reads as ``answer``."""
        self._assumed.append(answer)
        try:
            yield
        finally:
            self._assumed.pop()

    def scalar(self, tensor: VirtualTensor) -> Answer:
        """What ``tensor.item()`` answers for a data-less tensor.

        Raises:
            WindtunnelError: E401 for integers.
        """
        dtype = tensor.dtype
        if self._assumed:
            answer = self._assumed[-1]
            self._note(f"a {_kind(dtype)} was assumed to be {answer}")
            if dtype.is_floating_point:
                return float(answer)
            return bool(answer) if dtype is torch.bool else int(answer)
        if dtype.is_floating_point or dtype.is_complex:
            self._note("the value of a float read as 1.0")
            return 1.0
        if dtype is torch.bool:
            self._note(f"a boolean read as {tensor.store.truth}")
            return tensor.store.truth
        if tensor.store.is_tally:
            self._note("a count of matches read as 0")
            return 0
        raise self.refusal("reads an integer that depends on data")

    def copied(self, tensor: VirtualTensor, dtype: torch.dtype) -> Answer:
        """What every element reads as where a data-less tensor is copied to the host as ``dtype``.

        Bytes (quantised weights, images) and large integers are stored rather than read: they become zeros.

        Raises:
            WindtunnelError: E401 for other integers.
        """
        answer: Answer
        if self._assumed:
            answer = self._assumed[-1]
        elif dtype.is_floating_point or dtype.is_complex:
            answer = 1.0
        elif torch.bool in (dtype, tensor.dtype):
            answer = tensor.store.truth
        elif tensor.store.is_tally or dtype.itemsize == 1 or not 0 < tensor.numel() <= _READ_LIMIT:
            answer = 0
        else:
            raise self.refusal("copies integers that depend on data to the host")
        self._note(f"data-less values copied to the host read as {answer}")
        return answer

    @property
    def assuming(self) -> bool:
        """Whether the script said what values read as."""
        return bool(self._assumed)

    def left(self, what: str) -> None:
        """Note what a copy holds that is too large to be written (a whole model on its way to a file)."""
        self._note(f"data-less tensors of more than a million values, copied to the host, {what}")

    def data_dependent(self, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator whose result's shape depends on data that does not exist.

        Raises:
            WindtunnelError: E401 always.
        """
        raise self.refusal(f"`{info.name}` has a result whose shape depends on data")

    def refusal(self, what: str) -> WindtunnelError:
        """The error for a value that does not exist."""
        where = self.state.context.current_line()
        return WindtunnelError(
            "E401",
            f"{what}, and shadow tensors have none ({where})",
            hint="`windtunnel run --values` computes with real data (small models), or wrap the line in "
            "`with windtunnel.assume(0):`",
            values={"line": str(where)},
        )

    def _note(self, what: str) -> None:
        self.state.recorder.notice(NoticeKind.ASSUMED, what)


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point:
        return "float"
    return "boolean" if dtype is torch.bool else "integer"

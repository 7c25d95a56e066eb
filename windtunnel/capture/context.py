"""Where the script is: stream, module, source line and phase, as one interned number per operation.

Budget: about a microsecond an operation. Source lines are cached by (code object, instruction), module
paths are kept by hooks on module calls, and backward operations take the place of the forward operation
that their autograd node came from.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from types import CodeType, FrameType
from typing import Any

import torch

from windtunnel.program.program import Phase, SourceLine

_graph_task_id = torch._C._current_graph_task_id
_current_node: Any = torch._C._current_autograd_node
_sequence_number = torch._C._autograd._get_sequence_nr

_TORCH = os.path.dirname(torch.__file__) + os.sep
_CAPTURE = os.path.dirname(__file__) + os.sep
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_LAUNCHERS = (_PACKAGE + "cli" + os.sep, _PACKAGE + "align" + os.sep)
_STDLIB = sysconfig.get_path("stdlib") + os.sep
_SITE = sysconfig.get_path("purelib") + os.sep
_BACKPORT = _SITE + "typing_extensions.py"  # wraps what PyTorch calls deprecated

NO_LINE = SourceLine("<outside the script>", 0)


def is_user_code(code: CodeType) -> bool:
    """Whether a frame is worth naming: the script's or a library's, not PyTorch's, Python's or ours."""
    name = code.co_filename
    if name.startswith((_TORCH, _CAPTURE, *_LAUNCHERS)) or name.startswith("<"):
        return name in ("<stdin>", "<string>")
    return name != _BACKPORT and (not name.startswith(_STDLIB) or name.startswith(_SITE))


class Context:
    """The current place, and the tables of all places seen.

    Attributes:
        places: (stream, scope, line, phase) of each context number.
        module_depth, scope: maintained by ``modules.py``. in_optimizer: by ``steps.py``.
        stream: number of the current stream, by ``streams.py``.
    """

    def __init__(self) -> None:
        self.places: list[tuple[int, int, int, int]] = []
        self.scopes: list[str] = [""]
        self.lines: list[SourceLine] = [NO_LINE]
        self.stream = 0
        self.scope = 0
        self.module_depth = 0
        self.in_optimizer = False
        self.override: tuple[int, int | None] | None = None  # (scope, line) of compiled code
        self._numbers: dict[tuple[int, int, int, int], int] = {}
        self._scope_numbers: dict[str, int] = {"": 0}
        self._line_numbers: dict[SourceLine, int] = {NO_LINE: 0}
        self._line_of_instruction: dict[tuple[CodeType, int], int] = {}
        self._is_user: dict[CodeType, bool] = {}
        self._origin: dict[int, int] = {}  # autograd sequence number → context of the forward op
        self._last_sequence = -1
        self._backward_cache: tuple[Any, int] = (None, 0)

    def number(self) -> int:
        """The interned number of the current place."""
        if self.override is not None:
            return self._override_number(self.override)
        if _graph_task_id() != -1:
            return self._backward_number()
        sequence = _sequence_number()
        made_node = sequence != self._last_sequence
        if self.in_optimizer:
            phase = Phase.OPTIMIZER
        elif self.module_depth or made_node:
            phase = Phase.FORWARD
        else:
            phase = Phase.OTHER
        number = self._intern((self.stream, self.scope, self.line(), phase))
        if made_node:
            self._origin[sequence - 1] = number
            self._last_sequence = sequence
        return number

    def line(self) -> int:
        """Number of the innermost line of user code on the stack; 0 when there is none."""
        frame: FrameType | None = sys._getframe(2)
        is_user = self._is_user
        while frame is not None:
            code = frame.f_code
            known = is_user.get(code)
            if known is None:
                known = is_user[code] = is_user_code(code)
            if known:
                key = (code, frame.f_lasti)
                line = self._line_of_instruction.get(key)
                if line is None:
                    line = self._line_number(code, frame.f_lineno)
                    self._line_of_instruction[key] = line
                return line
            frame = frame.f_back
        return 0

    def scope_number(self, path: str) -> int:
        """The interned number of a module path."""
        number = self._scope_numbers.get(path)
        if number is None:
            number = self._scope_numbers[path] = len(self.scopes)
            self.scopes.append(path)
        return number

    def current_line(self) -> SourceLine:
        """The innermost line of user code on the stack."""
        return self.lines[self.line()]

    def line_at(self, filename: str, line: int, function: str) -> int:
        """The interned number of a known line."""
        return self._intern_line(SourceLine(_short(filename), line, function))

    def _override_number(self, place: tuple[int, int | None]) -> int:
        scope, line = place
        phase = Phase.FORWARD if _graph_task_id() == -1 else Phase.BACKWARD
        return self._intern((self.stream, scope, self.line() if line is None else line, phase))

    def _backward_number(self) -> int:
        if self.module_depth:  # forward code inside backward: activation checkpointing
            sequence = _sequence_number()
            number = self._intern((self.stream, self.scope, self.line(), Phase.RECOMPUTE))
            if sequence != self._last_sequence:
                self._origin[sequence - 1] = number
                self._last_sequence = sequence
            return number
        node = _current_node()
        if node is None:
            return self._intern((self.stream, 0, self.line(), Phase.BACKWARD))
        origin = self._origin.get(node._sequence_nr())
        if origin is None:
            return self._intern((self.stream, 0, self.line(), Phase.BACKWARD))
        _, scope, line, _ = self.places[origin]
        return self._intern((self.stream, scope, line, Phase.BACKWARD))

    def _intern(self, place: tuple[int, int, int, int]) -> int:
        number = self._numbers.get(place)
        if number is None:
            number = self._numbers[place] = len(self.places)
            self.places.append(place)
        return number

    def _line_number(self, code: CodeType, line: int) -> int:
        return self._intern_line(SourceLine(_short(code.co_filename), line, code.co_name))

    def _intern_line(self, where: SourceLine) -> int:
        number = self._line_numbers.get(where)
        if number is None:
            number = self._line_numbers[where] = len(self.lines)
            self.lines.append(where)
        return number


def _short(filename: str) -> str:
    """A path that reads well and names no machine: below site-packages, or below the working folder."""
    if filename.startswith(_SITE):
        return filename.removeprefix(_SITE)
    if not os.path.isabs(filename):
        return filename
    relative = os.path.relpath(filename)
    return os.path.basename(filename) if relative.startswith("..") else relative

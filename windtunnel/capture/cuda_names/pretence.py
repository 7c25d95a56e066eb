"""What is pretended: noted once per name and source line, or refused under ``--strict``.

On a Moore Threads card every CUDA name is pretended: torch_musa answers to its own names only. On an NVIDIA
card CUDA names are the card's own; there only answers without substance (a temperature) are pretended.
"""

from __future__ import annotations

import functools
import site
import sys
import sysconfig
from collections.abc import Callable
from types import CodeType
from typing import Any

from windtunnel.capture.context import is_user_code
from windtunnel.capture.session import Session
from windtunnel.errors import WindtunnelError
from windtunnel.program.program import NoticeKind
from windtunnel.specs.schema import Vendor

_LIBRARIES = tuple(
    {
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
)

user_code: Callable[[CodeType], bool] = functools.lru_cache(maxsize=None)(is_user_code)
"""Whether a frame is the script's or a library's, not PyTorch's or ours."""


@functools.cache
def library_code(code: CodeType) -> bool:
    """Whether a frame belongs to an installed package."""
    return code.co_filename.startswith(_LIBRARIES)


class Pretence:
    """Notes or refuses, for one session.

    Attributes:
        native: the card is NVIDIA's, so CUDA names are its own.
        speaks_cuda: ``tensor.device`` reads ``cuda``: always on NVIDIA cards; on others from the moment
            the script asks for a ``cuda`` device.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.native = session.chip.vendor is Vendor.NVIDIA
        self.strict = session.strict
        self.speaks_cuda = self.native

    def name(self, name: str) -> None:
        """A CUDA name was used by the script or a library.

        Raises:
            WindtunnelError: E410 under ``--strict``, unless the card is NVIDIA's.
        """
        if self.native:
            return
        if self.strict:
            raise self._refusal(name)
        self._note(f"`{name}`")

    def device(self, spelled: str) -> None:
        """A tensor or module was asked onto a ``cuda`` device. Raises as ``name``."""
        self.placed(f'device "{spelled}"')

    def placed(self, name: str) -> None:
        """A CUDA name moved or made a tensor: from now on devices read ``cuda``. Raises as ``name``."""
        self.name(name)
        self.speaks_cuda = True

    def hollow(self, name: str, answer: object) -> None:
        """A question without a true answer on a virtual card.

        Raises:
            WindtunnelError: E411 under ``--strict``.
        """
        if self.strict:
            raise WindtunnelError(
                "E411",
                f"`{name}` has no true answer on a virtual card ({self._where()})",
                hint="run without --strict to get a placeholder, or take the call out",
                values={"line": self._where()},
            )
        self._note(f"`{name}` answered {answer}")

    def function(
        self, name: str, target: Callable[..., Any], original: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """``target`` under a CUDA name: noted when the script or a library calls it, not when PyTorch does.

        Under ``--strict`` libraries get ``original``: many seed or clean up CUDA whether it is there or not.
        Always a new function: dynamo keys its tables by functions and refuses one that has two names.
        """

        @functools.wraps(target)
        def called(*args: Any, **kwargs: Any) -> Any:
            code = sys._getframe(1).f_code
            if not self.native and user_code(code):
                if original is not None and self.strict and library_code(code):
                    return original(*args, **kwargs)
                self.name(name)
            return target(*args, **kwargs)

        return called

    def question(
        self, name: str, target: Callable[..., Any], original: Callable[..., Any]
    ) -> Callable[..., Any]:
        """As ``function``, for names that ask whether there is CUDA.

        PyTorch's own code is answered by PyTorch, which then takes the path of the card's real name; so are
        libraries under ``--strict``: what they would find on a machine without CUDA.
        """

        @functools.wraps(target)
        def called(*args: Any, **kwargs: Any) -> Any:
            code = sys._getframe(1).f_code
            if not user_code(code) or (self.strict and not self.native and library_code(code)):
                return original(*args, **kwargs)
            self.name(name)
            return target(*args, **kwargs)

        return called

    def _refusal(self, name: str) -> WindtunnelError:
        where = self._where()
        return WindtunnelError(
            "E410",
            f"CUDA is named under --strict: `{name.replace('`', '')}` ({where})",
            hint='use the names of the card ("musa", `torch.musa`) or `torch.accelerator`, or run without '
            "--strict",
            values={"line": where, "chip": self.session.chip.name},
        )

    def _where(self) -> str:
        return str(self.session.state.context.current_line())

    def _note(self, what: str) -> None:
        self.session.recorder.notice(NoticeKind.PRETENDED, what)

"""Errors that the card raises inside a backward pass (out of memory, say) reach the script.

While PyTorch 2.13 unwinds its engine it asks our device guard for its type with the Python error still set;
that call then fails inside a function that may not fail, and the process aborts. So the error is kept here,
the guard clears it, and the engine raises it again once it has unwound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import Variable

_Engine: Any = type(Variable._execution_engine)

_depth = 0
_kept: list[BaseException] = []


class _Cleared(Exception):
    pass


def guarded(dispatch: Callable[[Any, Any, Any], Any], func: Any, args: Any, kwargs: Any) -> Any:
    """Call ``dispatch``; within a backward pass keep what it raises."""
    if not _depth:
        return dispatch(func, args, kwargs)
    try:
        return dispatch(func, args, kwargs)
    except BaseException as error:
        _kept[:] = [error]
        raise


def clear_error() -> None:
    """Called by the device guard: drop the error that C++ left set, and keep it if nobody did."""
    if _depth:
        try:
            # Any raise replaces the error that is set, and catching it leaves none. What arrives then is a
            # SystemError, for calling the class with an error set is a fault in itself; its cause is the error.
            raise _Cleared
        except _Cleared:
            pass
        except BaseException as fault:
            if not _kept and fault.__cause__ is not None:
                _kept[:] = [fault.__cause__]


class _EngineThatRaises(_Engine):  # type: ignore[misc]
    def run_backward(self, *args: Any, **kwargs: Any) -> Any:
        global _depth
        _depth += 1
        try:
            return super().run_backward(*args, **kwargs)
        except SystemError:
            if not _kept:
                raise
        finally:
            _depth -= 1
            error = _kept.pop() if _kept else None
        assert error is not None
        raise error


def install() -> None:
    """Put the engine in place, once per process."""
    engine: Any = torch.autograd.Variable
    engine._execution_engine = _EngineThatRaises()

"""Streams and events. PyTorch's C++ side accepts any ``torch.Stream``; what they mean is kept here.

The recording holds who waits for whom; the virtual clock (``clock.py``) tells when.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.backend import PRIVATE_USE_1
from windtunnel.program import marks

if TYPE_CHECKING:
    from windtunnel.capture.state import State

_ids = itertools.count(1)
_events = itertools.count(1)


def _state() -> State:
    from windtunnel.capture.tensor import VirtualTensor  # the process's one state lives there

    return VirtualTensor.state


class Stream(torch.Stream):
    """A queue of kernels; the default stream has number 0."""

    number: int

    def __new__(cls, device: Any = None, priority: int = 0, **_: Any) -> Stream:
        if isinstance(device, torch.Stream):
            device = None
        return super().__new__(cls, stream_id=next(_ids), device_index=0, device_type=int(PRIVATE_USE_1))

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        self.number = _number_of(self.stream_id)
        self.priority = priority
        self._previous: list[Stream] = []

    def record_event(self, event: Any = None) -> Event:
        event = event if event is not None else Event()
        event.record(self)
        recorded: Event = event
        return recorded

    def wait_event(self, event: Any) -> None:
        event.wait(self)

    def wait_stream(self, stream: Any) -> None:
        if stream is not self:
            self.wait_event(stream.record_event())

    def synchronize(self) -> None:
        with on_stream(self):
            _state().recorder.emit(marks.STREAM_SYNCHRONIZE)

    def query(self) -> bool:
        return True

    @property
    def cuda_stream(self) -> int:
        return self.number

    musa_stream = cuda_stream

    def __enter__(self) -> Stream:
        self._previous.append(current())
        set_current(self)
        return self

    def __exit__(self, *_: Any) -> None:
        set_current(self._previous.pop())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, torch.Stream) and other.stream_id == self.stream_id

    def __hash__(self) -> int:
        return hash(self.stream_id)


class Event(torch.Event):
    """A point in a stream. ``elapsed_time`` answers from the virtual clock."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Event:
        return super().__new__(cls, device=torch._C._get_privateuse1_backend_name())

    def __init__(
        self,
        enable_timing: bool = False,
        blocking: bool = False,
        interprocess: bool = False,
        **_: Any,
    ) -> None:
        self.enable_timing = enable_timing
        self.number = 0

    def record(self, stream: Any = None) -> None:
        self.number = next(_events)
        _emit_on(stream, marks.EVENT_RECORD, self.number)

    def wait(self, stream: Any = None) -> None:
        if self.number:
            _emit_on(stream, marks.EVENT_WAIT, self.number)

    def synchronize(self) -> None:
        if self.number:
            _emit_on(None, marks.EVENT_SYNCHRONIZE, self.number)

    def query(self) -> bool:
        return True

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds between two recorded events, as the chip would measure.

        Raises:
            RuntimeError: an event has no timing, or was not recorded; as on a real card.
        """
        if not (self.enable_timing and end_event.enable_timing):
            raise RuntimeError("Both events must be created with argument 'enable_timing=True'.")
        if not (self.number and end_event.number):
            raise RuntimeError("Both events must be recorded before calculating elapsed time.")
        clock = _state().clock
        return 1e3 * (clock.event_time_s(end_event.number) - clock.event_time_s(self.number))


def _emit_on(stream: Any, mark: str, event: int) -> None:
    if stream is None:
        _state().recorder.emit(mark, event=event)
    else:
        with on_stream(stream):
            _state().recorder.emit(mark, event=event)


_numbers: dict[int, int] = {}


def _number_of(stream_id: int) -> int:
    """Streams are numbered in the order in which they first appear, per recording."""
    recorder = _state().recorder
    number = _numbers.get(stream_id)
    if number is None or number >= len(recorder.streams):
        number = _numbers[stream_id] = len(recorder.streams)
        recorder.streams.append(f"stream {number}")
    return number


class _DefaultStream(Stream):
    def __new__(cls) -> _DefaultStream:
        return super(Stream, cls).__new__(cls, stream_id=0, device_index=0, device_type=int(PRIVATE_USE_1))

    def __init__(self) -> None:
        self.number = 0
        self.priority = 0
        self._previous = []


_default: Stream | None = None
_current: Stream | None = None


def default() -> Stream:
    """The default stream."""
    global _default
    if _default is None:
        _default = _DefaultStream()
    return _default


def current() -> Stream:
    """The stream on which operations are issued now."""
    return default() if _current is None else _current


def set_current(stream: Stream | None) -> None:
    """Issue operations on ``stream`` from now on."""
    global _current
    _current = stream
    _state().context.stream = 0 if stream is None else getattr(stream, "number", 0)


class on_stream:
    """Context manager: operations inside are issued on ``stream``; None does nothing."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._previous: Stream | None = None

    def __enter__(self) -> None:
        if self.stream is not None:
            self._previous = current()
            set_current(self.stream)

    def __exit__(self, *_: Any) -> None:
        if self.stream is not None:
            set_current(self._previous)


def reset() -> None:
    """Forget the streams of an earlier recording."""
    global _current
    _current = None
    _numbers.clear()

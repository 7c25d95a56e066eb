"""Device memory as the script sees it: one object per storage, alive as long as any tensor on it.

Its birth and death are the allocation and free events of the recording; PyTorch's own holders (tensors
saved for backward) keep it alive through the tensors that they hold.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

from windtunnel.program.program import Category


class Storage:
    """The memory behind a tensor and its views.

    Attributes:
        number: position in the recording's list of allocations.
        nbytes: current size; ``capacity`` is the size at birth.
        valued: False once data-less data was written into a storage that held values.
        truth: what a data-less boolean in here answers when it is asked.
        is_tally: counts true booleans: a data-less one reads as 0.
    """

    __slots__ = ("__weakref__", "capacity", "is_tally", "ledger", "nbytes", "number", "truth", "valued")

    def __init__(self, nbytes: int, ledger: Ledger) -> None:
        self.nbytes = self.capacity = nbytes
        self.valued = True
        self.truth = False
        self.is_tally = False
        self.ledger = ledger
        self.number = -1  # until the allocation succeeded
        self.number = ledger.allocate(nbytes)

    def resize(self, nbytes: int) -> None:
        """What ``untyped_storage().resize_`` does: FSDP frees and re-allocates parameters with it."""
        if nbytes == self.nbytes:
            return
        if self.number >= 0:
            self.ledger.free(self.number, self.nbytes)
        self.number = -1
        self.number = self.ledger.allocate(nbytes)
        self.nbytes = nbytes

    def address(self) -> int:
        """A stable, unique device address."""
        return self.ledger.address(self.number)

    # module globals are gone at interpreter exit, hence no look-ups here
    def __del__(self) -> None:
        if self.number >= 0:
            self.ledger.free(self.number, self.nbytes)


class Ledger:
    """The order of allocations and frees, and the bytes alive. Written by ``Storage`` only.

    ``on_pressure`` is called after an allocation while live bytes are above ``limit_bytes``; it may take the
    allocation back and raise ``torch.OutOfMemoryError`` in the script, at the operation that asked. ``keeps`` is False
    where nobody will ask for the recording: a process that computes for days must not remember every tensor.
    """

    def __init__(self, events: list[int]) -> None:
        self.events = events
        self.sizes: list[int] = []
        self.categories: dict[int, Category] = {}
        self.keeps = True
        self._unkept = -1
        self.live_bytes = 0
        self.peak_bytes = 0
        self.limit_bytes: float = float("inf")
        self.on_pressure: Callable[[], None] | None = None
        self.address_of: Callable[[int], int] | None = None

    def allocate(self, nbytes: int) -> int:
        """Note an allocation and return its number, below 0 where none are kept. Sizes of 0 take no memory."""
        if not self.keeps:
            self._unkept -= 1
            return self._unkept
        number = len(self.sizes)
        self.sizes.append(nbytes)
        self.events.append(-2 * number - 1)
        live = self.live_bytes = self.live_bytes + nbytes
        if live > self.peak_bytes:
            self.peak_bytes = live
        if live > self.limit_bytes and self.on_pressure is not None:
            self.on_pressure()
        return number

    def take_back(self) -> None:
        """The last allocation did not happen."""
        self.events.pop()
        self.live_bytes -= self.sizes.pop()

    def free(self, number: int, nbytes: int) -> None:
        """Note that storage ``number`` of ``nbytes`` died."""
        self.events.append(-2 * number - 2)
        self.live_bytes -= nbytes

    def mark(self, storage: Storage, category: Category) -> None:
        """Say what a storage holds."""
        if storage.number >= 0:
            self.categories[storage.number] = category

    def mark_new(self, storage: Storage, category: Category) -> None:
        """The same, unless something was said already."""
        if storage.number >= 0:
            self.categories.setdefault(storage.number, category)

    def address(self, number: int) -> int:
        """Device address of an allocation; unique per number where no allocator was asked for."""
        if self.address_of is not None and number >= 0:
            return self.address_of(number)
        return 0x7F00_0000_0000 + 512 * number


_by_cdata: weakref.WeakValueDictionary[int, Storage] = weakref.WeakValueDictionary()


def register(untyped: torch.UntypedStorage, storage: Storage) -> None:
    """Let Python's storage methods find ours (PyTorch's C++ storage has no data pointer)."""
    _by_cdata[untyped._cdata] = storage


def _ours(untyped: torch.UntypedStorage) -> Storage | None:
    if untyped.device.type != torch._C._get_privateuse1_backend_name():
        return None
    return _by_cdata.get(untyped._cdata)


def patch_untyped_storage() -> None:
    """``resize_``, ``nbytes``, ``size`` and ``data_ptr`` of card storages answer from ``Storage``.

    FSDP frees parameters with ``resize_(0)``; FSDP1 and safetensors compare addresses.
    """
    cls: Any = torch.UntypedStorage
    resize, nbytes, data_ptr = cls.resize_, cls.nbytes, cls.data_ptr

    def resize_(self: torch.UntypedStorage, size: int) -> Any:
        storage = _ours(self)
        if storage is None:
            return resize(self, size)
        storage.resize(size)
        return self

    def nbytes_(self: torch.UntypedStorage) -> int:
        storage = _ours(self)
        return int(nbytes(self)) if storage is None else storage.nbytes

    def data_ptr_(self: torch.UntypedStorage) -> int:
        storage = _ours(self)
        return int(data_ptr(self)) if storage is None else storage.address()

    cls.resize_, cls.nbytes, cls.size, cls.data_ptr = resize_, nbytes_, nbytes_, data_ptr_

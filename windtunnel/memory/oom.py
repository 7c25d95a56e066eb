"""Out of memory, as the allocator knows it: numbers, and the sentence that PyTorch prints."""

from __future__ import annotations

from windtunnel.units import GIB, KIB, MIB


class OutOfMemory(Exception):
    """The device cannot give what was asked, even after all cached memory was returned.

    Internal: capture turns it into ``torch.OutOfMemoryError``, ``fit`` and reports into an answer.

    Attributes:
        requested_bytes: what the driver was asked for (the segment, not the tensor).
        free_bytes: what the driver had left.
        outside_bytes: held by this process outside the allocator (context, libraries).
    """

    def __init__(
        self,
        *,
        requested_bytes: int,
        allocated_bytes: int,
        reserved_bytes: int,
        free_bytes: int,
        total_bytes: int,
        outside_bytes: int,
        allowed_bytes: int | None = None,
    ) -> None:
        super().__init__(f"{requested_bytes} bytes asked, {free_bytes} left")
        self.requested_bytes = requested_bytes
        self.allocated_bytes = allocated_bytes
        self.reserved_bytes = reserved_bytes
        self.free_bytes = free_bytes
        self.total_bytes = total_bytes
        self.outside_bytes = outside_bytes
        self.allowed_bytes = allowed_bytes

    def message(self, device: int = 0, platform: str = "CUDA") -> str:
        """The text of ``torch.OutOfMemoryError``, worded as PyTorch words it: scripts read it."""
        in_use = self.reserved_bytes + self.outside_bytes
        allowed = f"{format_size(self.allowed_bytes)} allowed; " if self.allowed_bytes is not None else ""
        return (
            f"{platform} out of memory. Tried to allocate {format_size(self.requested_bytes)}. "
            f"GPU {device} has a total capacity of {format_size(self.total_bytes)} "
            f"of which {format_size(self.free_bytes)} is free. "
            f"Including non-PyTorch memory, this process has {format_size(in_use)} memory in use. {allowed}"
            f"Of the allocated memory {format_size(self.allocated_bytes)} is allocated by PyTorch, and "
            f"{format_size(self.reserved_bytes - self.allocated_bytes)} is reserved by PyTorch but "
            "unallocated. If reserved but unallocated memory is large try setting "
            f"PYTORCH_{platform}_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See "
            "documentation for Memory Management  "
            "(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
        )


def format_size(nbytes: int) -> str:
    """Bytes as the allocator prints them: two decimals, binary units."""
    if nbytes <= KIB:
        return f"{nbytes} bytes"
    if nbytes <= MIB:
        return f"{nbytes / KIB:.2f} KiB"
    if nbytes <= GIB:
        return f"{nbytes / MIB:.2f} MiB"
    return f"{nbytes / GIB:.2f} GiB"

"""An independent, slow allocator: segments are lists of (size, owner), searched from the start every time.

It shares no code with the package. It is written from the rules of PyTorch's allocator as sentences.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 2**20


@dataclass
class Piece:
    size: int
    owner: int | None


@dataclass
class Segment:
    serial: int
    small: bool
    stream: int
    pieces: list[Piece] = field(default_factory=list)


class NoMemory(Exception):
    pass


class ReferenceAllocator:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.segments: list[Segment] = []
        self.serial = 0
        self.retries = 0

    @property
    def reserved(self) -> int:
        return sum(piece.size for segment in self.segments for piece in segment.pieces)

    @property
    def active(self) -> int:
        return sum(
            piece.size for segment in self.segments for piece in segment.pieces if piece.owner is not None
        )

    def where(self, owner: int) -> tuple[int, int]:
        """(serial number of the segment, offset)."""
        for segment in self.segments:
            offset = 0
            for piece in segment.pieces:
                if piece.owner == owner:
                    return segment.serial, offset
                offset += piece.size
        raise KeyError(owner)

    def allocate(self, owner: int, nbytes: int, stream: int) -> None:
        size = 512 * ((nbytes + 511) // 512)
        small = size <= MIB
        found = self._best(size, small, stream)
        if found is None:
            found = self._fresh(size, small, stream)
        segment, index = found
        piece = segment.pieces[index]
        rest = piece.size - size
        if rest >= 512 if small else rest > MIB:
            segment.pieces[index : index + 1] = [Piece(size, owner), Piece(rest, None)]
        else:
            piece.owner = owner

    def free(self, owner: int) -> None:
        for segment in self.segments:
            for piece in segment.pieces:
                if piece.owner == owner:
                    piece.owner = None
                    self._join(segment)
                    return
        raise KeyError(owner)

    def empty(self) -> None:
        self.segments = [
            segment for segment in self.segments if any(piece.owner is not None for piece in segment.pieces)
        ]

    def _best(self, size: int, small: bool, stream: int) -> tuple[Segment, int] | None:
        candidates = []
        for segment in self.segments:
            if segment.small is not small or segment.stream != stream:
                continue
            offset = 0
            for index, piece in enumerate(segment.pieces):
                if piece.owner is None and piece.size >= size:
                    candidates.append((piece.size, segment.serial, offset, segment, index))
                offset += piece.size
        if not candidates:
            return None
        best = min(candidates, key=lambda candidate: candidate[:3])
        return best[3], best[4]

    def _fresh(self, size: int, small: bool, stream: int) -> tuple[Segment, int]:
        wanted = (
            2 * MIB if small else 20 * MIB if size < 10 * MIB else (size + 2 * MIB - 1) // (2 * MIB) * 2 * MIB
        )
        if self.reserved + wanted > self.capacity:
            self.empty()
            self.retries += 1
            if self.reserved + wanted > self.capacity:
                raise NoMemory
        segment = Segment(self.serial, small, stream, [Piece(wanted, None)])
        self.serial += 1
        self.segments.append(segment)
        return segment, 0

    def _join(self, segment: Segment) -> None:
        joined: list[Piece] = []
        for piece in segment.pieces:
            if joined and joined[-1].owner is None and piece.owner is None:
                joined[-1].size += piece.size
            else:
                joined.append(piece)
        segment.pieces = joined

"""What a training row's peak of memory is made of, and what each part rests on."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.recipes.fit.parts import MemoryParts
from windtunnel.validation.predict_training import case_of, memory_parts, peak_memory, rows_of
from windtunnel.validation.reasons import Incomplete
from windtunnel.validation.tables import Table

_COUNTED = (
    ("weights", "parameters of this rank × bytes of their type"),
    ("gradients", "parameters with a gradient × bytes of the type they are kept in"),
    ("optimizer", "parameters ÷ ranks that share them × bytes of master copy and moments"),
)
_MODELLED = (
    ("activations", "tensors that autograd keeps at the fullest moment of the second step"),
    ("working", "temporary buffers at that moment: logits, gradients of activations, gathered parameters"),
)
_REST = (
    ("workspace", "of the matrix libraries, one a stream (assumed)"),
    ("pools", "segments that the allocator keeps for other streams"),
    ("cached", "segments that the allocator holds and does not use at the peak"),
    ("communication", "buffers of the collective library (assumed)"),
)


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """Bytes of one kind and how they were found."""

    name: str
    nbytes: int
    formula: str


@dataclass(frozen=True, slots=True)
class MemoryWhy:
    """A peak of memory. ``reserved``: whether the prediction is what the allocator holds, else what is in use."""

    chip: str
    nbytes: float
    reserved: bool
    parts: tuple[MemoryPart, ...]
    formula: str
    notes: tuple[str, ...]


def explain_memory(table: Table) -> MemoryWhy | None:
    """The peak of the one row of ``table``; None where it is not predicted."""
    row = rows_of(table)[0]
    case, _ = case_of(table.file, row)
    if case is None:
        return None
    try:
        found = memory_parts(case, row)
    except Incomplete:
        return None
    peak = peak_memory(case, found)
    replayed = found.cached is not None
    formula = (
        "buffers of two steps in the order of their allocation, replayed by PyTorch's caching allocator"
        if replayed
        else "tensors counted one by one (arXiv 2205.05198), and a share for fragmentation"
    )
    notes = (
        "nothing is fitted: parts are counts and sizes of the recipe's tensors; docs/memory.md has errors on peaks "
        "that were measured",
        *(f"assumed: {text}" for text in case.assumed),
    )
    return MemoryWhy(case.chip, peak.value, peak.reserved, _parts(found, peak.reserved), formula, notes)


def _parts(found: MemoryParts, reserved: bool) -> tuple[MemoryPart, ...]:
    kinds = (*_COUNTED, *_MODELLED, _REST[0], *(_REST[1:] if reserved else ()))
    every = [(name, getattr(found, name) or 0, formula) for name, formula in kinds]
    if found.cached is not None:  # what is cached holds the pools, too
        every = [part for part in every if part[0] != "pools"]
    if reserved and found.fragmentation:
        every.append(("fragmentation", found.fragmentation, "a share of what a step stirs"))
    return tuple(MemoryPart(name, int(size), formula) for name, size, formula in every if size)

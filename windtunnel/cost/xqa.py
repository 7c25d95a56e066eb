"""TensorRT-LLM's decode kernel of 16-bit caches, and which chips run it.

Ampere, Ada and Hopper decode over 16-bit caches with one program (XQA by ``mma.sync``: ``supportConfigHMMA``), so that
what one of them was measured with holds for the others better than a mean with Blackwell's generated kernels does.
Caches of 8 bits have another program on Hopper, which multiplies 8-bit operands; elsewhere this one widens them as it
reads, and leaves keys whole (``attentionOp.cpp``: ``multi_block_mode``).
"""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel.cost.fit import Fit
from windtunnel.specs.catalogue import chip as chip_named
from windtunnel.specs.catalogue import generation_of
from windtunnel.specs.schema import Chip

LIBRARY = "trtllm@trtllm"
GENERATIONS = frozenset({"Ampere", "Ada", "Hopper"})


def runs_xqa(chip: Chip, variant: str) -> bool:
    """Whether TensorRT-LLM takes this kernel on a chip for grouped heads over a cache of ``variant``."""
    generation = generation_of(chip.name)
    whole = variant == "" and generation in GENERATIONS
    return whole or (variant == "fp8_cache" and generation in GENERATIONS - {"Hopper"})


def xqa_elsewhere(fits: Sequence[Fit], chip: Chip, library: str, precision: str, variant: str) -> Fit | None:
    """The kernel as another chip that runs it was measured; None where the chip runs another one, or where its own
    generation was measured with this very path.
    """
    if library != LIBRARY or not runs_xqa(chip, variant):
        return None
    known = [
        fit
        for fit in fits
        if fit.chip
        and (fit.library, fit.precision, fit.variant) == (library, precision, "")
        and runs_xqa(chip_named(fit.chip), "")
    ]
    mine = generation_of(chip.name)
    paths = {
        (fit.library, fit.precision, fit.variant)
        for fit in fits
        if fit.chip and generation_of(fit.chip) == mine
    }
    if not known or (library, precision, variant) in paths:
        return None
    kernel = max(known, key=lambda fit: (fit.chip == chip.name, generation_of(fit.chip) == mine, fit.rows))
    return kernel.widening() if variant else kernel

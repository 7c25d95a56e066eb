"""What is changed in a fit that prices another chip, harness or library than it was fitted on, and how far it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.cost import query_tiles
from windtunnel.cost.batch import WEIGHT_ONLY_BYTES
from windtunnel.cost.decode_attention import ALL_GROUPS
from windtunnel.cost.fit import ADDED, EXTRAS, POOLED, Fit
from windtunnel.cost.memory_path import CACHE_SHARE
from windtunnel.cost.stand_in import CUBLAS, MODULE, PLAIN_VARIANTS, copies, is_by, quantises_queries
from windtunnel.specs.catalogue import chip as chip_named
from windtunnel.specs.catalogue import generation_of
from windtunnel.specs.schema import Chip

SCALES = frozenset({"issue", "dram"})
"""Parameters that carry over between chips as a ratio: what a chip sustains of its data sheet."""


SERVING = frozenset({"trtllm", "sglang", "vllm"})
"""Libraries whose layers take activations of 16 bits, whatever they multiply in."""
HARNESSED = frozenset({"attention", "decode_attention"})
"""Families whose harnesses write the cache, pack queries and plan beside the kernel, whichever kernel it is."""
FAR_THROTTLE = 0.5
"""How far, between boost and base, clocks are taken to fall under power on a chip of another generation, at most:
about what kernels of attention show where they were measured (0.3 to 0.58). More belongs to the process and the board
that it was seen on. An assumption."""
ENGINE_OF_SINGLE_HEADS = frozenset({"trtllm"})
"""Harnesses that have a decode kernel of single heads beside TensorRT-LLM's grouped one: its own engine alone. Others
call the grouped kernel through FlashInfer, whatever the group."""
HOST_FLOOR_S = 25e-6
"""Floors from here on are the host's."""


def prefill_facts(library: str, precision: str, variant: str) -> dict[str, float]:
    """What the source of a library's prefill states: its tiles, and what is done beside the kernel."""
    return {
        "tile": float(query_tiles.rule_of(library)),
        "copies": float(copies(library)),
        "quantised": float(quantises_queries(library, precision, variant)),
    }


def as_called(fit: Fit, library: str) -> Fit:
    """A prefill kernel with what the source of the library asked for states."""
    if "tile" not in dict(fit.values):
        return fit
    facts = prefill_facts(library, fit.precision, fit.variant)
    if facts["tile"] == query_tiles.FLASHINFER and not fit.value("synchronous"):
        facts["tile"] = float(
            query_tiles.USUAL
        )  # the rule is of its template for chips without asynchronous units
    return fit.with_values({**dict(fit.values), **facts})


def of_another_harness(fit: Fit, family: Sequence[Fit], library: str, chip: Chip) -> Fit:
    """A kernel that another harness calls: what its own harness spends beside it stays behind.

    That is a floor above, and handling slower than, those of the fit over everything. Where the harness asked for is
    known from other kernels, as that of a whole module or of attention, what it spends comes along: its floor in
    seconds, and what it moves at the share of the memory's bandwidth that it reaches there.
    """
    fit = as_called(fit, library)
    if "group_max" in dict(fit.values) and library.partition("@")[2] not in ENGINE_OF_SINGLE_HEADS:
        fit = fit.with_values({**dict(fit.values), "group_max": ALL_GROUPS, "grouped_least": 0.0})
    generic = next((other for other in family if (other.chip, other.library) == (POOLED, "")), None)
    harness = library.partition("@")[2]
    there = [
        other for other in family if harness and other.library.partition("@")[2] == harness and other.chip
    ]
    there = _doing_alike(there, fit, library)
    if generic is None:
        return fit
    if fit.family == "grouped_gemm":  # whose fit over everything is of bare products, not of a fused layer
        return fit
    usual = dict(generic.values)
    if (harness.endswith(MODULE) or fit.family in HARNESSED) and there:
        floor_s = np.median([other.value("floor_clocks") / (other.clock_hz or 1.0) for other in there])
        apart = fit.value("copies", 0.0) > 0  # whose bytes pass through memory in a term of their own
        here = 1.0 if apart else _memory_bytes_a_clock(chip)
        move = np.median(
            [
                other.value("move") / (1.0 if apart else _memory_bytes_a_clock(chip_named(other.chip)))
                for other in there
            ]
        )
        clock = fit.clock_hz if fit.chip == chip.name and fit.clock_hz else chip.clock_hz.value
        spent = {"floor_clocks": float(floor_s * clock), "move": float(move * here)}
        values = tuple((name, spent.get(name, value)) for name, value in fit.values)
        return replace(fit, values=values, clock_hz=clock)
    best = {"floor_clocks": min, "move": max}
    values = tuple(
        (name, best[name](value, usual[name]) if name in best and name in usual else value)
        for name, value in fit.values
    )
    return replace(fit, values=values)


def _doing_alike(there: list[Fit], fit: Fit, library: str) -> list[Fit]:
    """Of a harness's fits those that ask as much of it: in this precision and variant, with queries narrowed or not.

    Where none has narrowed ones, those over a cache of 8 bits; else all.
    """
    narrows = quantises_queries(library, fit.precision, fit.variant)

    def like(other: Fit) -> bool:
        return quantises_queries(other.library, other.precision, other.variant) == narrows

    same = [other for other in there if (other.precision, other.variant) == (fit.precision, fit.variant)]
    alike = [other for other in same if like(other)]
    if narrows and not alike:
        alike = [other for other in there if other.variant == "fp8_cache"]
    return alike or same or there


def _memory_bytes_a_clock(chip: Chip) -> float:
    """Bytes that memory gives each multiprocessor a clock: what a harness moves beside the kernel, it copies."""
    return chip.memory_bytes_per_s.value / (chip.multiprocessors.value * chip.clock_hz.value)


def carried(fit: Fit, chip: Chip) -> Fit:
    """A fit of other chips on this one: a floor longer than kernels take to start is the host's, and passes in seconds.

    Floors of 3 to 6 µs are as many clocks on A100, H100 and B200. Those of 10 to 20 µs are several kernels, and follow
    neither law on all paths (TensorRT-LLM's prefill 10.4, 12.1 and 12.9 µs, its experts 33 and 26 thousand clocks):
    they stay in clocks. Those of vLLM's latent attention, 150 to 320 µs, can only be Python between kernels.
    How much of its cache's bandwidth a chip gives belongs to the chip: products are not told by another generation.
    """
    if fit.family in HARNESSED and (
        fit.chip == POOLED or generation_of(fit.chip) != generation_of(chip.name)
    ):
        fit = fit.with_values(
            {name: min(value, FAR_THROTTLE) if name == "throttle" else value for name, value in fit.values}
        )
    if fit.family == "gemm" and (fit.chip == POOLED or generation_of(fit.chip) != generation_of(chip.name)):
        values = dict(fit.values)
        fit = fit.with_values({**values, "cache": CACHE_SHARE} if "cache" in values else values)
    floor = dict(fit.values).get("floor_clocks", 0.0)
    if fit.clock_hz == 0 or floor / fit.clock_hz < HOST_FLOOR_S:
        return fit
    ratio = chip.clock_hz.value / fit.clock_hz
    return replace(
        fit,
        values=tuple(
            (name, value * ratio if name == "floor_clocks" else value) for name, value in fit.values
        ),
    )


def with_extras(fit: Fit, by_library: Sequence[Fit], library: str) -> Fit:
    """A kernel of another library as ``library`` calls it: with what that does beside its kernel on a relative, and
    its floor. The fit's library then reads ``measured+asked``.
    """
    theirs = next((other for other in by_library if other.library == library), None)
    if theirs is None:  # whoever serves in 8 and 4 bits quantises what the layer before has left in 16
        alike = library in SERVING and any(name in EXTRAS for name, _ in fit.values)
        return replace(fit, library=f"{fit.library}{ADDED}{library}") if alike else fit
    kept = {name: value for name, value in fit.values if name not in EXTRAS}
    beside = {name: value for name, value in theirs.values if name in EXTRAS or name == "floor_clocks"}
    return replace(fit.with_values({**kept, **beside}), library=f"{fit.library}{ADDED}{library}")


def as_clocked(fit: Fit, by_library: Sequence[Fit]) -> Fit:
    """The same kernel on what another library multiplies: its throttle is that of the data, as on the nearest relative
    that the library was measured on.
    """
    theirs = dict(by_library[0].values) if by_library else {}
    names = ("throttle", "throttle_s")
    clocked: dict[str, float] = {name: theirs[name] for name in names if name in theirs}
    return fit.with_values({**dict(fit.values), **clocked}) if clocked else fit


def rescaled(fit: Fit, family: Sequence[Fit], chip: Chip) -> Fit:
    """The shape of ``fit``, its peak fractions scaled as another kernel path scales between the two chips.

    For attention and dense products on a chip that was not measured: as between its measured relative of one
    generation and the other.
    A program of one generation that later ones run as it is (``synchronous``) scales as no other does.
    """
    if fit.value("synchronous", 0.0):
        return fit
    name = _measured_of_kind(family, chip) if fit.family in (*HARNESSED, "gemm") else chip.name
    here = {(other.library, other.precision, other.variant): other for other in family if other.chip == name}
    there = {(o.library, o.precision, o.variant): o for o in family if o.chip == fit.chip}
    shared = sorted(
        set(here) & set(there), key=lambda key: (key[1] != fit.precision, key[0] != fit.library, key)
    )
    if not shared:
        return fit
    mine, theirs = here[shared[0]], there[shared[0]]
    values = tuple(
        (name, value * mine.value(name) / theirs.value(name) if name in SCALES else value)
        for name, value in fit.values
    )
    return replace(fit, values=values)


def _measured_of_kind(family: Sequence[Fit], chip: Chip) -> str:
    """The chip, or where nothing was measured on it the nearest of its generation on which something was."""
    measured = {other.chip for other in family}
    kin = [name for name in chip.relatives if generation_of(name) == generation_of(chip.name)]
    return next((name for name in (chip.name, *kin) if name in measured), chip.name)


KIN_SPREAD = 0.1
"""How far the same kernel is off, in logarithms at the ends of an 80 % interval, on another chip of its generation:
clocks under power, memory timings and board limits that no data sheet states. An assumption, in line with 13 %
between identical systems of one benchmark round (MLPerf training, 90th percentile)."""
BALANCE_SPREAD = 0.2
"""What is added for each unit by which the logarithm of bandwidth to multiprocessors differs: what bounded the kernel
where it was fitted may not bound it here. An assumption: too few pairs of one generation were measured to fit it."""


def kin_spread(fitted_on: str, chip: Chip) -> float:
    """The error, in logarithms, of a fit of ``fitted_on`` on another chip of its generation."""
    there = chip_named(fitted_on)
    balance = np.log(
        (chip.memory_bytes_per_s.value / chip.multiprocessors.value)
        / (there.memory_bytes_per_s.value / there.multiprocessors.value)
    )
    return float(KIN_SPREAD + BALANCE_SPREAD * abs(balance))


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a fit comes: from the chip itself (``own``), its architecture (``kin``) or ``far``; by the library asked
    for (``same``) or an ``other``; of the very precision and variant (``same``), of one whose weights are widened in
    the kernel where these are not, or the reverse (``widened``), or an ``other``.
    """

    chip: str
    library: str
    path: str

    def __str__(self) -> str:
        return f"{self.chip}/{self.library}/{self.path}"

    def near_enough(self) -> Iterator[Distance]:
        """This distance, then those that may stand for it where too little was measured, each no nearer."""
        yield self
        yield replace(self, library="other")
        if self.path == "widened":
            yield Distance("far", self.library, self.path)
            yield Distance("far", "other", self.path)
        yield replace(self, path="other")
        yield Distance("far", self.library, self.path)
        yield Distance("far", "other", self.path)
        yield Distance("far", "other", "other")


def _kin(fit: Fit, chip: Chip) -> bool:
    return fit.chip != POOLED and generation_of(fit.chip) == generation_of(chip.name)


def distance(fit: Fit, chip: Chip, library: str, precision: str, variant: str) -> Distance:
    """How far ``fit`` comes from a kernel path on ``chip``."""
    kin = _kin(fit, chip)
    cublas = (
        fit.family == "gemm" and (precision, variant) == ("bf16", "") and {fit.library, library} <= CUBLAS
    )
    same = cublas or not library or is_by(fit, library, same_harness=False)
    plain = "" if variant in PLAIN_VARIANTS else variant
    path = fit.precision == precision and fit.variant in (variant, plain)
    widened = (fit.variant in WEIGHT_ONLY_BYTES) != (variant in WEIGHT_ONLY_BYTES)
    return Distance(
        "own" if fit.chip == chip.name else "kin" if kin else "far",
        "same" if same else "other",
        "same" if path else "widened" if widened else "other",
    )

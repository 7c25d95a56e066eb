"""Which fit prices a kernel path on a chip: its own, a relative's, or one pooled over chips.

For each path from near to far (this precision and variant, this precision, its kin, anything):

1. the chip's own fit by the library asked for, or by the same kernel in another harness (``kernel@harness``);
2. that on relatives of the same generation, nearest first;
3. dense products: the chip's (or its kin's) own fit by another library with the same menu of tiles, with what the
   library asked for does beside the kernel (leaving paths out, 10 % median error against 15 to 17 % from a chip of
   another generation);
4. layers of experts: the chip's own fit by the same kernel in another precision;
5. the library on other relatives, or pooled, rescaled to the chip;
6. the chip's own fit by any library; where none was asked for, a relative's or the pooled one.

A library that nobody measured ends at the fit over everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from windtunnel.cost.borrow import HARNESSED, as_clocked, carried, of_another_harness, rescaled, with_extras
from windtunnel.cost.fit import POOLED, Fit
from windtunnel.cost.fit_files import load
from windtunnel.cost.stand_in import (
    CUBLAS,
    KINDRED_VARIANTS,
    LIBRARIES,
    PLAIN_VARIANTS,
    PRECISION_KIN,
    PYTORCH_KERNEL,
    SAME_RATE,
    SAME_TEMPLATE,
    alike,
    is_by,
)
from windtunnel.cost.tiles import known_menu
from windtunnel.cost.tuned_experts import OLD
from windtunnel.cost.xqa import xqa_elsewhere
from windtunnel.estimate import Source
from windtunnel.specs.catalogue import generation_of
from windtunnel.specs.schema import Chip, Vendor

Path = tuple[str, str]
"""Precision and variant."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The fit chosen for a kernel path on a chip, and how it relates to that chip."""

    fit: Fit
    own: bool  # the chip's own measurements; False: a relative's, or pooled
    exact: bool  # the library asked for (or none was asked for), in this precision and variant

    def source(self) -> Source:
        """What a time inside the fitted range may call itself."""
        if self.own and self.exact:
            return Source.CALIBRATED
        return Source.ANALYTIC if self.fit.rows else Source.DATASHEET


def choose(
    family: str,
    chip: Chip,
    *,
    library: str = "",
    precision: str = "",
    variant: str = "",
    repeated: bool = False,
) -> Choice:
    """The best fit there is; KeyError when the family has no file. ``repeated``: a benchmark, not a program."""
    found = choose_from(
        load(family),
        chip,
        family=family,
        library=library,
        precision=precision,
        variant=variant,
        repeated=repeated,
    )
    if found is None:
        raise KeyError(family)
    return found


def choose_from(
    fits: Sequence[Fit],
    chip: Chip,
    *,
    family: str,
    library: str,
    precision: str,
    variant: str,
    repeated: bool,
) -> Choice | None:
    """``choose`` among given fits; None where nothing fits at all."""
    near = (
        _of_one_program(fits, chip) if variant.startswith(LATENT) and family == "decode_attention" else fits
    )
    kernel = xqa_elsewhere(fits, chip, library, precision, variant) if family == "decode_attention" else None
    if kernel is not None:
        return Choice(carried(kernel, chip), own=kernel.chip == chip.name, exact=False)
    for path in _paths(precision, variant):
        on_path = [fit for fit in near if (fit.precision, fit.variant) == path]
        asked = library or _called_by_pytorch(on_path, family, chip)
        found = _near(near, on_path, chip, asked, path) or _on_path(on_path, fits, chip, asked)
        if found is not None:
            fit, own = found[0].in_precision(precision), found[1]
            fit = fit if own else carried(fit, chip)
            plain = path[1] == "" and variant in PLAIN_VARIANTS
            exact = (
                (fit.precision, fit.variant) == path
                and path[0] in (precision, SAME_RATE.get(precision))
                and (path[1] == variant or plain)
                and library in ("", fit.library)
            )
            fit = _with_menu(fit.called_by(library, repeated=repeated), library, precision, variant)
            return Choice(fit, own, exact)
    return None


def _with_menu(fit: Fit, library: str, precision: str, variant: str) -> Fit:
    """The tiles of the library asked for, where its source states them; a search, where only that of the library
    measured does: experts that one engine tunes and another does not.
    """
    menu = known_menu(fit.family, library, precision, variant)
    theirs = library and known_menu(fit.family, fit.library, fit.precision, fit.variant)
    if menu is None and theirs and fit.family == "grouped_gemm":
        menu = 0.0
    return fit if menu is None else fit.with_values({**dict(fit.values), "menu": menu})


LATENT = "mla"
SYNCHRONOUS_PROGRAM = "Ampere"
PROGRAMS = {"Ada": SYNCHRONOUS_PROGRAM}
"""Generations whose libraries run another one's programs: neither has asynchronous matrix units."""
NEXT_OF_KIND = {"Blackwell": "Hopper"}
"""Generations whose programs are another one's written anew for matrix units of the same kind, asynchronous ones."""


def _of_one_program(fits: Sequence[Fit], chip: Chip) -> Sequence[Fit]:
    """Latent fits of chips that run the same programs, and the fit over everything.

    Grouped-query kernels are none of these programs, not even the chip's own: TensorRT-LLM's reads the cache once a
    head where more than 32 share it, a hundred times what latent attention takes.
    Latent decode is written anew for each kind of matrix units: leaving chips out, TensorRT-LLM's kernel of an A100
    is 105 and 136 % off on an H100, the fit over everything with what the harness spends 24 and 27 %; of an H100 on an
    A100 60 and 47 %, against 42 and 46 %. Where a generation has none measured, that of the one before stands for it if
    its matrix units are of the same kind: over everything, kernels of an A100 say what those of a B200 cannot do. (256
    sequences of 2,048, 4,096 and 8,192 tokens, 128 heads, 16 bits: 0.26, 0.50 and 0.97 ms over everything, 0.20, 0.34
    and 0.62 ms by TensorRT-LLM's on Hopper; CUTLASS's takes a B200 0.20, 0.36 and 0.69 ms, pull request 6929 of
    sgl-project/sglang.) Chips of other makers name the relatives whose kernels theirs
    are like.
    """
    if chip.vendor is not Vendor.NVIDIA:
        return fits
    mine = _program(chip.name)
    if not any(fit.variant.startswith(LATENT) and fit.chip and _program(fit.chip) == mine for fit in fits):
        mine = NEXT_OF_KIND.get(mine, mine)
    return [
        fit
        for fit in fits
        if (fit.chip, fit.library) == (POOLED, "")
        or (fit.chip and fit.variant.startswith(LATENT) and _program(fit.chip) == mine)
    ]


def _program(chip: str) -> str:
    generation = generation_of(chip)
    return PROGRAMS.get(generation, generation)


def _paths(precision: str, variant: str) -> list[Path]:
    names = (precision, *PRECISION_KIN.get(precision, ()))
    paths = [(name, kind) for name in names for kind in dict.fromkeys((variant, ""))]
    return [*paths, ("", variant), ("", "")]


def _called_by_pytorch(fits: Sequence[Fit], family: str, chip: Chip) -> str:
    """The library to ask for where a program calls PyTorch: ``torch`` itself as measured on the nearest relative."""
    usual = PYTORCH_KERNEL.get(family, "")
    for name in (chip.name, *chip.relatives) if usual else ():
        known = {fit.library for fit in fits if fit.chip == name}
        if "torch" in known:
            return "" if name == chip.name else "torch"
        if usual in known:
            return usual
    return usual


def _near(
    fits: Sequence[Fit], on_path: Sequence[Fit], chip: Chip, library: str, path: Path
) -> tuple[Fit, bool] | None:
    """Before other generations are asked for this very path: the chip's own products by another library, or the same
    library's kernel on a relative in a kindred path.

    What a library runs on one generation of matrix units is another program on the next: a 16-bit cache on a
    relative says more about an 8-bit one than an 8-bit cache on a chip of another generation does.
    """
    names = (chip.name, *chip.relatives)
    by_library = [fit for fit in on_path if fit.chip in names and is_by(fit, library, same_harness=False)]
    if not library or any(_same_architecture(fit, chip) for fit in by_library):
        return None
    if fits[0].family == "gemm":
        return _another_library(on_path, chip, library, by_library, path)
    if fits[0].family == "grouped_gemm":
        return _another_path(fits, chip, library, path)
    if by_library:
        return None
    return _kindred(fits, chip, library, path)


def _another_library(
    on_path: Sequence[Fit], chip: Chip, library: str, by_library: Sequence[Fit], path: Path
) -> tuple[Fit, bool] | None:
    """Dense products that another library measured on the chip or its kin; cuBLAS is cuBLAS, whoever calls it."""
    near = [fit for fit in on_path if _same_architecture(fit, chip)]
    if not near:
        return None
    cublas = path == ("bf16", "") and library in CUBLAS
    same = [fit for fit in near if cublas and fit.library in CUBLAS]
    kernel = max(same or near, key=lambda fit: (fit.chip == chip.name, fit.rows))
    menus = {fit.value("menu", 0.0) for fit in (kernel, *by_library)}
    if not same and len(menus) > 1:
        return None  # a library that goes by a rule of its own is a kernel of its own
    calls = [carried(fit, chip) for fit in by_library]
    called = as_clocked(kernel, calls) if same else with_extras(kernel, calls, library)
    return called, kernel.chip == chip.name


def _another_path(fits: Sequence[Fit], chip: Chip, library: str, path: Path) -> tuple[Fit, bool] | None:
    """Layers of experts that the same kernel generator measured on the chip or its kin in another precision: routing,
    tiles and fusion are its own.
    """
    near = [fit for fit in fits if _same_architecture(fit, chip) and is_by(fit, library, same_harness=False)]
    if not near:
        return None
    kernel = min(
        near,
        key=lambda fit: (
            fit.chip != chip.name,
            fit.precision != path[0],
            fit.variant != path[1],
            fit.library != library,
            fit.variant,
        ),
    )
    return kernel, kernel.chip == chip.name


def _kindred(fits: Sequence[Fit], chip: Chip, library: str, path: Path) -> tuple[Fit, bool] | None:
    names = (chip.name, *chip.relatives)
    kernel = library.partition("@")[0]
    attention = any(fit.family in PYTORCH_KERNEL for fit in fits)
    synchronous = _program(chip.name) == SYNCHRONOUS_PROGRAM  # in decode it splits keys by a plan of its own
    template = SAME_TEMPLATE.get(kernel) if attention and synchronous else None
    asked = (library,) if template is None else (library, template)
    precisions = (path[0], *(PRECISION_KIN.get(path[0], ()) if attention else ()))
    variants = dict.fromkeys((path[1], KINDRED_VARIANTS.get(path[1], path[1])))
    for key in [(precision, variant) for precision in precisions for variant in variants]:
        kindred = [fit for fit in fits if fit.chip in names and (fit.precision, fit.variant) == key]
        for name in asked:
            nearby = [fit for fit in kindred if is_by(fit, name, same_harness=False)]
            if nearby:
                found = _on_path(nearby, fits, chip, name)
                if found is None or name == library:
                    return found
                return of_another_harness(found[0], fits, library, chip), found[1]
    return None


def _on_path(fits: Sequence[Fit], family: Sequence[Fit], chip: Chip, library: str) -> tuple[Fit, bool] | None:
    for fit, same_harness in _by(fits, chip, library) if library else ():
        fit = fit if same_harness else of_another_harness(fit, family, library, chip)
        own = fit.chip == chip.name
        return (fit, True) if own else (rescaled(fit, family, chip), False)
    for name in (chip.name,) if library else (chip.name, *chip.relatives, POOLED):
        on_chip = {fit.library: fit for fit in fits if fit.chip == name}
        for candidate in (*LIBRARIES, *sorted(on_chip)):
            if candidate in on_chip:
                found = on_chip[candidate]
                beside = library and found.family in HARNESSED
                return of_another_harness(
                    found, family, library, chip
                ) if beside else found, name == chip.name
    over_everything = next((fit for fit in fits if (fit.chip, fit.library) == (POOLED, "")), None)
    if over_everything is None:
        return None
    beside = library and over_everything.family in HARNESSED
    return of_another_harness(over_everything, family, library, chip) if beside else over_everything, False


def _by(fits: Sequence[Fit], chip: Chip, library: str) -> Iterator[tuple[Fit, bool]]:
    """Fits of the library from near to far: (fit, whether its very harness).

    Of other harnesses' layers of experts an older release of this one comes first, then the one that saw most.
    """
    experts = fits and fits[0].family == "grouped_gemm"
    ordered = (
        sorted(fits, key=lambda fit: (fit.library.removesuffix(OLD) != library, -fit.rows))
        if experts
        else fits
    )
    for name in (chip.name, *chip.relatives, POOLED):
        for same_harness in (True, False):
            found = [fit for fit in ordered if fit.chip == name and is_by(fit, library, same_harness)]
            if found and found[0].family in HARNESSED:
                found.sort(key=lambda fit: alike(fit, library))
            for fit in found:
                yield fit, same_harness


def _same_architecture(fit: Fit, chip: Chip) -> bool:
    return fit.chip == chip.name or (
        fit.chip != POOLED and generation_of(fit.chip) == generation_of(chip.name)
    )

"""Which output tiles a library of matrix products has to choose from: its menu.

Vendor libraries search: they hold tiles of many shapes and split K, and take what suits. Others go by a rule: the
height of the tile follows the rows of the product, its width is fixed, and a product of one row more than fills a
wave of tiles pays for a whole wave (vLLM's and SGLang's CUTLASS kernels for FP8; block-scaled FP4 on Blackwell,
whose scales are laid out for 128 rows). A rule carries over to chips that were not measured, as a kernel does.

Where a library's source states its rule, the rule is taken from there (``known_menu``), for every architecture that
it ships kernels for; which menu the others have is chosen while fitting: the one under which its measured products are
explained best.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES
from windtunnel.cost.kernel_time import Floats

TILES = (
    (256, 256),
    (256, 128),
    (128, 256),
    (128, 128),
    (128, 64),
    (64, 256),
    (64, 128),
    (64, 64),
    (32, 128),
    (32, 64),
    (16, 128),
    (16, 64),
    (16, 32),
)
"""(rows, columns) of output tiles that libraries ship for tensor cores."""

SPLITS = (1, 2, 4, 8, 16)
"""Split-K factors."""


TILE_K = 64
"""K is walked in steps of this many elements, unless a rule says otherwise."""

_ALL = float("inf")


@dataclass(frozen=True, slots=True)
class Step:
    """The tile (rows, columns) of products of at most ``most_rows`` rows and ``most_columns`` columns and of a depth of
    ``least_depth``; ``cluster`` tiles one above the other and ``beside`` next to each other are launched together,
    whether the product reaches that far or not, and read what they have in common once. K is walked in steps of
    ``depth``.
    """

    most_rows: float
    rows: int
    columns: int
    most_columns: float = _ALL
    cluster: int = 1
    least_depth: float = 0.0
    beside: int = 1
    depth: int = 64


class By(Enum):
    """What the steps of a rule for layers of experts count as rows."""

    ROWS = "rows of an expert"
    TOKENS = "tokens of the layer"
    SHARE = "tokens of the layer for each expert of the rank"


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles to try: arrays of shape (tiles, 1, 1), or (1, 1, products) where a rule decides."""

    rows: Floats
    columns: Floats
    cluster: Floats
    depth: Floats
    beside: Floats

    def high(self, m: Floats) -> Floats:
        """Tiles that cover ``m`` rows."""
        return np.asarray(np.ceil(m / (self.rows * self.cluster)) * self.cluster)

    def wide(self, n: Floats) -> Floats:
        """Tiles that cover ``n`` columns."""
        return np.asarray(np.ceil(n / (self.columns * self.beside)) * self.beside)


@dataclass(frozen=True, slots=True)
class Menu:
    """A menu of tiles.

    Attributes:
        rule: the first step that covers a product decides; empty: any tile of ``TILES`` with at least ``rows_least``
            rows.
        rules: rules of single architectures, where the library ships other kernels there.
        swizzled: whether tiles are walked in blocks, so that neighbours share what they read; else along one side, the
            shorter, so that a wave of tiles reads all of one operand.
        striped: whether every multiprocessor takes an equal stripe of all tiles, through K if need be.
        depth: steps in which K is walked where no rule says it.
        waits: whether so few steps of K are in flight that a block alone waits for each: Triton's kernels.
        by: what the rule of a layer of experts calls rows.
        split: whether K may be split.
    """

    name: str
    rule: tuple[Step, ...] = ()
    rows_least: int = 0
    split: bool = False
    rules: tuple[tuple[str, tuple[Step, ...]], ...] = ()
    swizzled: bool = True
    by: By = By.ROWS
    waits: bool = False
    striped: bool = False
    depth: int = TILE_K

    def tiles(self, m: Floats, n: Floats, k: Floats, architecture: str = "") -> Tiles:
        """The tiles to try for products of ``m`` rows, ``n`` columns and depth ``k``."""
        rule = dict(self.rules).get(architecture.partition(" ")[0], self.rule)
        if not rule:
            shapes = [shape for shape in TILES if shape[0] >= self.rows_least]
            rows, columns = (np.array(side, dtype=np.float64).reshape(-1, 1, 1) for side in zip(*shapes))
            one = np.ones_like(rows)
            return Tiles(rows, columns, one, np.full_like(rows, self.depth), one)
        covered = np.stack(
            [(m <= step.most_rows) & (n <= step.most_columns) & (k >= step.least_depth) for step in rule]
        )
        index = covered.argmax(axis=0).reshape(1, 1, -1)
        return Tiles(
            *(
                np.array([getattr(step, name) for step in rule], dtype=np.float64)[index]
                for name in ("rows", "columns", "cluster", "depth", "beside")
            )
        )

    @property
    def states_clusters(self) -> bool:
        """Whether its rules say which tiles share their reads."""
        steps = (*self.rule, *(step for _, rule in self.rules for step in rule))
        return any(step.cluster * step.beside > 1 for step in steps)

    def splits(self) -> Floats:
        """Split-K factors to try: shape (1, splits, 1)."""
        return np.array(SPLITS if self.split else (1,), dtype=np.float64).reshape(1, -1, 1)


def _by_height(*steps: tuple[float, int, int]) -> tuple[Step, ...]:
    return tuple(Step(*step) for step in steps)


_UP_TO_128 = _by_height((64, 64, 64), (128, 64, 128), (_ALL, 128, 128))

GENERAL = 7
"""The first menus, which any library may have; the others are single libraries'."""

MENUS = (
    Menu("searched", split=True),
    Menu("searched, K whole", rows_least=64),
    Menu("by height, to 128 × 128", _UP_TO_128),
    Menu("by height, to 128 × 64", _by_height((64, 64, 64), (_ALL, 128, 64))),
    Menu("by height, to 128 × 256", _by_height((64, 64, 256), (_ALL, 128, 256))),
    Menu("by height from 16, to 64 × 64", _by_height((16, 16, 64), (_ALL, 64, 64))),
    Menu(
        "by height from 16, to 128 × 128",
        _by_height((16, 16, 128), (32, 32, 128), (64, 64, 128), (_ALL, 128, 128)),
    ),
    Menu(
        "vLLM's CUTLASS FP8",
        _UP_TO_128,
        rules=(
            (
                "Ada",
                (
                    *(Step(16, 16, 64, 8192), Step(16, 16, 128, 24576), Step(16, 32, 64)),
                    *(Step(32, 32, 64, 8192), Step(32, 32, 128, 16384), Step(32, 32, 64)),
                    *(Step(64, 64, 64, 8192), Step(64, 64, 128, 16384), Step(64, 64, 64)),
                    *(Step(128, 64, 128, 8192), Step(128, 128, 128, 16384), Step(128, 128, 64)),
                    *(Step(256, 64, 128, 4096), Step(_ALL, 128, 128)),
                ),
            ),
            (
                "Hopper",  # small products with their operands swapped
                (
                    *(Step(16, 16, 64), Step(64, 16, 64, 1280), Step(64, 64, 64)),
                    *(Step(128, 64, 128, cluster=2), Step(8191, 128, 128, cluster=2)),
                    *(Step(_ALL, 256, 128, cluster=2, least_depth=6144), Step(_ALL, 128, 128, cluster=2)),
                ),
            ),
            (
                "Blackwell",
                (
                    *(Step(16, 32, 64, beside=4), Step(64, 64, 64, beside=4)),  # operands swapped
                    *(Step(256, 64, 128, cluster=2), Step(_ALL, 128, 128, cluster=2, beside=2)),
                ),
            ),
        ),
        swizzled=False,
    ),
    Menu(
        "SGLang's CUTLASS FP8",
        _UP_TO_128,
        rules=(
            (
                "Ada",
                (
                    *(Step(16, 16, 64, 8192), Step(16, 32, 64, 16384), Step(16, 16, 64)),
                    *(Step(64, 32, 64, 16384), Step(64, 16, 64)),
                    *(Step(128, 64, 64, 16384), Step(128, 32, 64)),
                    *(Step(256, 128, 64, 8192), Step(256, 64, 128, 16384), Step(256, 128, 64)),
                    Step(_ALL, 128, 128),
                ),
            ),
            (
                "Hopper",
                (
                    *(Step(16, 16, 64), Step(64, 64, 64), Step(128, 64, 128)),
                    *(Step(1024, 128, 128), Step(_ALL, 128, 128, cluster=2)),
                ),
            ),
            (
                "Blackwell",
                (
                    *(Step(16, 64, 64, beside=4), Step(64, 64, 64), Step(256, 64, 128, cluster=2)),
                    Step(_ALL, 128, 128, cluster=2, beside=2),
                ),
            ),
        ),
        swizzled=False,
    ),
    Menu("block FP8, by DeepGEMM but on Ada", rows_least=64, rules=(("Ada", (Step(_ALL, 32, 128),)),)),
    Menu(
        "TensorRT-LLM's generated experts",
        _by_height(
            (8, 8, 128), (16, 16, 128), (32, 32, 128), (64, 64, 128), (128, 128, 128), (_ALL, 256, 128)
        ),
    ),
    Menu(
        "generated experts, not tuned",
        _by_height((16, 8, 128), (32, 16, 128), (64, 32, 128), (128, 64, 128), (_ALL, 128, 128)),
    ),
    Menu(
        "FlashInfer's CUTLASS experts, not tuned",
        rules=(("Hopper", (Step(_ALL, 128, 16),)),),
    ),
    Menu(
        "Triton's experts until 2026",
        (Step(1, 16, 32, depth=64), Step(_ALL, 64, 64, depth=32)),
        by=By.SHARE,
        waits=True,
    ),
    Menu(
        "vLLM's Triton experts of 2026",
        (
            *(Step(32, 16, 64, depth=128), Step(64, 32, 64, depth=128), Step(96, 32, 128)),
            *(Step(512, 64, 128), Step(_ALL, 128, 128)),
        ),
        by=By.TOKENS,
        waits=True,
    ),
    Menu("Triton's experts in block FP8", (Step(_ALL, 64, 128, depth=128),), waits=True),
    Menu(
        "vLLM's Triton experts in block FP8 of 2026",
        (Step(64, 16, 128, depth=128), Step(_ALL, 64, 128, depth=128)),
        by=By.TOKENS,
        waits=True,
    ),
    Menu("Triton's experts, searched", rows_least=16, waits=True, depth=128),
    Menu(
        "Marlin's experts",
        _by_height((7.2, 8, 128), (14.4, 16, 128), (28.8, 32, 128), (43.2, 48, 128), (_ALL, 64, 128)),
        striped=True,
    ),
    Menu("FlashInfer's CuTe DSL FP4, searched, K whole"),
)
"""The number of a menu is its place here, and stands in parameter files."""

OLD_TRITON_EXPERTS = 13
"""Tiles of Triton's experts in SGLang, and in vLLM until 2026."""
TUNED_TRITON_EXPERTS = 17
"""Those of layers that somebody searched for (``tuned_experts.py``)."""


def access_bytes(k: Floats, precision: str) -> Floats:
    """Bytes that one thread of a Triton kernel moves at once where rows are ``k`` elements apart: Triton specialises
    kernels for arguments that 16 divides, and else knows nothing of how its pointers are aligned.
    """
    return np.where(k % 16 == 0, 16.0, ELEMENT_BYTES[precision])


_KNOWN_MENUS = {
    ("vllm", "fp8", ""): 7.0,
    ("sglang", "fp8", ""): 8.0,
    ("trtllm", "fp8", "block128"): 9.0,
    ("sglang", "fp8", "block128"): 9.0,
    ("vllm", "fp4", ""): 19.0,
    ("sglang", "fp4", ""): 19.0,
}
_KNOWN_OF_EXPERTS = {"trtllm_gen@trtllm": 10.0, "trtllm_gen@sglang": 11.0, "trtllm_gen@vllm": 11.0}
_RULED_EXPERTS = {
    ("marlin@sglang", "bf16", "int4_wo"): 18.0,
    ("marlin@vllm", "bf16", "int4_wo"): 18.0,
    ("triton@sglang", "bf16", ""): float(OLD_TRITON_EXPERTS),
    ("triton@vllm-2025", "bf16", ""): float(OLD_TRITON_EXPERTS),
    ("triton@vllm", "bf16", ""): 14.0,
    ("triton@vllm", "fp8", ""): 14.0,
    ("triton@sglang", "fp8", "block128"): 15.0,
    ("triton@vllm-2025", "fp8", "block128"): 15.0,
    ("triton@vllm", "fp8", "block128"): 16.0,
}
_NOT_TUNED = {("cutlass@vllm", "fp8", ""), ("cutlass@sglang", "bf16", "")}


def known_menu(family: str, library: str, precision: str, variant: str) -> float | None:
    """The menu that a library's source states; None where it is not known.

    vLLM ``scaled_mm_sm90_fp8_dispatch.cuh`` and its relatives, SGLang ``fp8_gemm_kernel.cu`` (its Hopper tables step
    where vLLM's rule does), FlashInfer ``gemm/kernels/utils.py`` (a score over tiles, K never split), TensorRT-LLM
    ``ada_blockwise_gemm``; two-SM tiles of Blackwell count as the half that one
    multiprocessor computes. Generated kernels for experts (``computeSelectedTileN``) take the power of two above the
    rows that each expert of the rank would have if all top-k choices were its own; where nobody tunes, the one below.
    """
    if family == "grouped_gemm":
        untuned = (library, precision, variant) in _NOT_TUNED
        ruled = _RULED_EXPERTS.get((library, precision, variant))
        return 12.0 if untuned else _KNOWN_OF_EXPERTS.get(library, ruled)
    return _KNOWN_MENUS.get((library, precision, variant)) if family == "gemm" else None

"""Rows of mixture-of-experts tables: fused layers (aiconfigurator), grouped products (InferSim, DeepGEMM)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, Batch
from windtunnel.cost.grouped_gemm import weight_bytes
from windtunnel.cost.kernel_time import Floats
from windtunnel.cost.tiles import TUNED_TRITON_EXPERTS, access_bytes
from windtunnel.cost.tuned_experts import is_tuned
from windtunnel.program.work import Family
from windtunnel.validation.aliases import chip_name, precision_of
from windtunnel.validation.kernel_rows import moe_collectors
from windtunnel.validation.measured import MeasuredRows, batch, shape_groups
from windtunnel.validation.routing import RankLoad
from windtunnel.validation.tables import Table

_KERNEL_WORDS = ("marlin", "triton", "trtllm_", "cutlass", "nongated", "deepep", "fused_moe")
_LIBRARY = {
    "trtllm_": "trtllm_gen",
    "nongated": "cutlass_nongated",
    "deepep": "deepgemm",
    "fused_moe": "triton",
}


BLANKS = frozenset({"triton", "marlin"})
"""Kernels whose buffers have a row for every choice of every token, those of other ranks included."""
GENERATED = frozenset({"w4a8_mxfp4_mxfp8", "nvfp4"})


def kernel_of(source: str, dtype: str = "") -> str:
    """``"vllm_fp8moe_triton_tritonexperts"`` → ``"triton"``; FP4 weights run on generated kernels in TensorRT-LLM."""
    name = source.lower()
    if name == "moe_torch_flow" and dtype in GENERATED:
        return "trtllm_gen"
    if "flashinfer_trtllm" in name:
        return "trtllm_gen"
    for word in _KERNEL_WORDS:
        if word in name:
            return _LIBRARY.get(word, word)
    return "cutlass"


def grouped(
    rows: Floats,
    n: Floats,
    k: Floats,
    experts: Floats,
    active: Floats,
    precision: str,
    variant: str,
    *,
    output_bytes: float = 2.0,
    more: Mapping[str, Floats] | None = None,
) -> Batch:
    """Grouped products over ``experts``, of which ``active`` receive rows; ``more`` dimensions."""
    element = ELEMENT_BYTES[precision]
    weight = weight_bytes(precision, variant)
    return batch(
        Family.GROUPED_GEMM,
        precision,
        {"tokens": rows, "n": n, "k": k, "experts": experts, "active": active, **(more or {})},
        flops=2.0 * rows * n * k,
        bytes_read=rows * k * element + experts * n * k * weight,
        bytes_written=rows * n * output_bytes,
        variant=variant,
    )


def aiconfigurator(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_aic_moe``: gate and up product, activation, down product, gather and weighted sum."""
    names = ["gpu_system", "library", "kernel_source", "moe_dtype", "table"]
    if table.has("library_version"):
        names.append("library_version")
    for (gpu, library, source, dtype, which, *version), rows in table.groups(*names):
        chip, path = chip_name(gpu), precision_of(dtype)
        if chip is None or path is None:
            continue
        kernel = kernel_of(source, dtype)
        name = moe_collectors.library_name(kernel, library, "".join(version))
        for chosen, host_s in moe_collectors.by_host(rows, which):
            yield _fused_layers(chosen, chip, name, path, source, which, host_s)


def _fused_layers(
    rows: Table, chip: str, name: str, path: tuple[str, str], source: str, which: str, host_s: float
) -> MeasuredRows:
    kernel = name.split("@")[0]
    found = moe_collectors.loads(rows, kernel)
    layer = _Layer.of(rows, chip, name, path, moe_collectors.gates(rows, source), found)
    beside = layer.between_exchanges(which) if kernel == "deepgemm" else layer.beside()
    groups = shape_groups(
        rows.number("hidden_size"), rows.number("inter_size"), rows.number("topk"), rows.number("num_experts")
    )
    parts = (*layer.products(), *beside)
    return MeasuredRows(
        rows.file, chip, name, rows.index, parts, rows.number("latency_seconds"), groups, host_s
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    """Fused layers of experts on one rank, row by row.

    Attributes:
        gates: up products side by side: two with a gate, one without.
        found: what reaches the rank.
    """

    chip: str
    library: str
    precision: str
    variant: str
    hidden: Floats
    inner: Floats
    gates: Floats
    experts: Floats
    tokens: Floats
    top_k: Floats
    found: Sequence[RankLoad]

    @classmethod
    def of(
        cls,
        rows: Table,
        chip: str,
        library: str,
        path: tuple[str, str],
        gates: Floats,
        found: Sequence[RankLoad],
    ) -> _Layer:
        """The layers of aiconfigurator's rows."""
        inner = rows.number("inter_size") / rows.number("moe_tp_size", 1.0)
        experts = np.maximum(rows.number("num_experts") / rows.number("moe_ep_size", 1.0), 1.0)
        return cls(
            chip, library, *path, rows.number("hidden_size"), inner, gates, experts,
            rows.number("num_tokens"), rows.number("topk"), found,
        )  # fmt: skip

    @property
    def kernel(self) -> str:
        return self.library.partition("@")[0]

    @property
    def received(self) -> Floats:
        return np.array([load.rows for load in self.found])

    @property
    def arriving(self) -> Floats:
        """Tokens that come to the layer."""
        return np.array([load.tokens for load in self.found])

    @property
    def moved(self) -> Floats:
        """Rows in all buffers: Triton's and Marlin's keep rows of other ranks as blanks."""
        blanks = self.arriving * self.top_k if self.kernel in BLANKS else 0.0
        return np.asarray(np.maximum(self.received, blanks))

    def products(self) -> Iterator[Batch]:
        """The up product, with its gate if there is one, and the down product."""
        active = np.array([load.active for load in self.found])
        path = (self.precision, self.variant)
        weight = weight_bytes(*path)
        wide = self.gates * self.inner
        touched = active * (wide + self.inner) * self.hidden * weight + 2.0 * self.received * (
            self.hidden + wide
        )
        more = {
            **_by_group(self.found),
            "touched_bytes": touched,
            "expected_rows": self.tokens * self.top_k / self.experts,
            "layer_tokens": self.arriving,
        }
        if self.kernel == "triton":
            tuned = is_tuned(self.library, *path, self.chip, self.experts, self.inner)
            more["menu"] = np.where(tuned, float(TUNED_TRITON_EXPERTS), 0.0)
        shapes = (
            (wide, self.hidden, np.minimum(more["layer_tokens"], self.received)),
            (self.hidden, self.inner, self.received),
        )
        for n, k, distinct in shapes:
            dims = {**more, "distinct_rows": distinct}
            if self.kernel == "triton":
                dims["access"] = access_bytes(k, self.precision)
            yield grouped(self.received, n, k, self.experts, active, *path, more=dims)

    def beside(self) -> Iterator[Batch]:
        """What the layer does beside its products: it quantises its input, applies the activation, gathers the rows of
        each expert and sums what the experts answer. Generated kernels fuse the activation; they, Triton's and
        Marlin's read rows where they are. These write zeros for rows of other ranks, Triton's after both products;
        they quantise what the activation answers in a pass of its own.
        """
        moved, inner, hidden, tokens = self.moved, self.inner, self.hidden, self.arriving
        element = ELEMENT_BYTES[self.precision]
        if self.kernel != "trtllm_gen":
            yield _pass(moved * inner, moved * inner * self.gates * 2.0, moved * inner * 2.0)
        gathered = 0.0 if self.kernel in ("trtllm_gen", "triton", "marlin") else 2.0
        yield batch(
            Family.COPY, "bf16", {"elements": moved * hidden},
            bytes_read=(2.0 + gathered) * moved * hidden, bytes_written=(gathered * moved + 2.0 * tokens) * hidden,
        )  # fmt: skip
        if self.precision != "bf16":
            yield _pass(tokens * hidden, 2.0 * tokens * hidden, element * tokens * hidden)
        if self.kernel == "triton" and self.precision != "bf16":
            yield _pass(moved * inner, 2.0 * moved * inner, element * moved * inner)
        if self.kernel in BLANKS:
            first = self.gates * inner if self.kernel == "triton" else 0.0
            zeros = (moved - self.received) * (first + hidden)
            yield batch(Family.COPY, "bf16", {"elements": zeros}, bytes_read=0.0, bytes_written=2.0 * zeros)

    def between_exchanges(self, which: str) -> Iterator[Batch]:
        """What SGLang's DeepEP layer does beside its products: tokens come in FP8. Of prompts (``ep_moe``'s scatter and
        gather) every token that came is read and its rows laid out by expert, rows are summed to tokens, and the
        activation is cast in a pass of its own; decoding has neither, its activation writes FP8.
        """
        moved, inner, hidden, tokens = self.received, self.inner, self.hidden, self.arriving
        if which != "wideep_context_moe":
            yield _pass(moved * inner, moved * inner * self.gates * 2.0, moved * inner)
            return
        yield _pass(moved * inner, moved * inner * self.gates * 2.0, moved * inner * 2.0)
        yield _pass(moved * inner, moved * inner * 2.0, moved * inner)
        yield _pass(moved * hidden, tokens * hidden, moved * hidden)
        yield _pass(moved * hidden, 2.0 * moved * hidden, 2.0 * tokens * hidden)


def _pass(elements: Floats, read: Floats, written: Floats) -> Batch:
    return batch(Family.POINTWISE, "bf16", {"elements": elements}, bytes_read=read, bytes_written=written)


def _by_group(found: Sequence[RankLoad]) -> dict[str, Floats]:
    """Experts and rows of one expert for each group of experts, as dimensions; zero where a rank has fewer."""
    most = max((len(load.counts) for load in found), default=0)
    columns: dict[str, Floats] = {}
    for number in range(most):
        columns[f"group{number}_experts"] = np.array(
            [load.counts[number] if number < len(load.counts) else 0.0 for load in found]
        )
        columns[f"group{number}_rows"] = np.array(
            [load.loads[number] if number < len(load.loads) else 0.0 for load in found]
        )
    return columns


def infersim(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_infersim_grouped_gemm``: the up product; the down product is listed by ``infersim_down``."""
    yield from _infersim(table, "up_proj_seconds", up=True)


def infersim_down(table: Table) -> Iterator[MeasuredRows]:
    """The down products of the same file."""
    yield from _infersim(table, "down_proj_seconds", up=False)


def _infersim(table: Table, column: str, *, up: bool) -> Iterator[MeasuredRows]:
    for (gpu, phase), rows in table.groups("gpu", "phase"):
        chip = chip_name(gpu)
        if chip is None:
            continue
        hidden, inner = rows.number("hidden_size"), rows.number("intermediate_size")
        experts = rows.number("num_local_experts")
        tokens = rows.number("tokens_per_expert") * experts
        n, k = (2.0 * inner, hidden) if up else (hidden, inner)
        part = grouped(tokens, n, k, experts, np.minimum(experts, tokens), "fp8", "block128")
        library = "deepgemm"
        groups = shape_groups(experts, rows.number("tokens_per_expert"))
        yield MeasuredRows(
            f"{rows.file}:{phase}", chip, library, rows.index, (part,), rows.number(column), groups
        )


def deepgemm(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_deepgemm_h800``, grouped rows."""
    for (gpu, precision), rows in table.where(table.text("op") != "dense").groups("gpu", "precision"):
        chip, path = chip_name(gpu), precision_of(precision)
        if chip is None or path is None:
            continue
        experts = rows.number("num_groups")
        tokens = rows.number("m_per_group") * experts
        part = grouped(tokens, rows.number("n"), rows.number("k"), experts, experts, *path)
        groups = shape_groups(rows.number("n"), rows.number("k"))
        yield MeasuredRows(
            rows.file, chip, "deepgemm", rows.index, (part,), rows.number("derived_seconds"), groups
        )

"""Matrix products of a layer with what surrounds them: casts to 8 bit, tensor-parallel collectives.

Forward ``y = x W^T``, input gradient ``dx = dy W``, weight gradient ``dW = dy^T x`` summed into the gradient
buffer. With sequence parallelism a column-parallel product gathers its input over the tensor-parallel ranks
first, and a row-parallel one scatters its sums; backward does the reverse, and gathers the input again for
the weight gradient (Megatron-LM, arXiv 2205.05198), next to the input gradient. DTensor exchanges where modules begin
and end instead (``tensor_parallel``).
"""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.program import kernels
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.recipes.groups import TENSOR
from windtunnel.recipes.layout import HostLoad, Layout, Precision, Sharding
from windtunnel.recipes.piece import Piece, collective, op, tensor, wait
from windtunnel.recipes.tensor_parallel import at_boundaries, cut, gather, scatter

FP4 = "float4_e2m1fn"
FP8_FORWARD, FP8_BACKWARD = "float8_e4m3fn", "float8_e5m2"
BLOCK_SCALES = {Precision.FP8_BLOCK: 128, Precision.MXFP8: 32}
_GATHER_WORK, _SCATTER_WORK = 1, 2
PIPELINED_SPLITS = 4


@dataclass(frozen=True, slots=True)
class Products:
    """How the products of one layout are written down."""

    layout: Layout

    @property
    def dtype(self) -> str:
        """Activations and parameters."""
        return self.layout.precision.activation

    @property
    def gradient(self) -> str:
        """What weight gradients are written in: FP32 where they are summed into Megatron's buffer as they come."""
        apart = self.layout.sharding is Sharding.FSDP or self.layout.host is HostLoad.EAGER_2021
        summed = self.layout.fused and not apart
        return "float32" if summed and self.layout.reduce_in_fp32 else self.dtype

    def into_buffer(self, *shape: int) -> list[OpSpec]:
        """Adding a gradient to the buffer, where the product did not do it."""
        layout = self.layout
        if layout.host is HostLoad.EAGER_2021:  # before products that sum into it
            buffer = "float32" if layout.reduce_in_fp32 else self.dtype
            return [op("aten.add_.Tensor", (tensor(buffer, *shape), tensor(self.dtype, *shape)), ())]
        if layout.fused or layout.sharding is Sharding.FSDP or not layout.reduce_in_fp32:
            return []
        return [op("aten.add_.Tensor", (tensor("float32", *shape), tensor(self.dtype, *shape)), ())]

    def product(
        self, m: int, n: int, k: int, result: str = "", backward: bool = False, turned: bool = False
    ) -> tuple[OpSpec, ...]:
        """(m, k) x (k, n) in the layout's precision, without casts; ``turned``: the left one is stored as (k, m)."""
        out = tensor(result or self.dtype, m, n)
        precision = self.layout.precision
        if not precision.is_fp8:
            left = TensorSpec(self.dtype, (m, k), (1, m) if turned else ())
            return (op("aten.mm", (left, tensor(self.dtype, k, n)), (out,)),)
        if precision is Precision.NVFP4:
            a, b = tensor(FP4, m, k), TensorSpec(FP4, (k, n), (1, k))
            scale = tensor("float32", 1)
            return (op("aten._scaled_mm", (a, b, scale, scale), (out,)),)
        left = tensor(FP8_BACKWARD if backward and precision is Precision.FP8 else FP8_FORWARD, m, k)
        right = TensorSpec(FP8_FORWARD, (k, n), (1, k))
        if precision is Precision.FP8:
            scale = tensor("float32", 1)
            return (op("aten._scaled_mm", (left, right, scale, scale), (out,)),)
        if precision is Precision.FP8_ROW:
            of_rows = tensor("float32", m, 1), tensor("float32", 1, n)
            return (op("aten._scaled_mm", (left, right, *of_rows), (out,)),)
        block = BLOCK_SCALES[precision]
        scales = tensor("float32", m, max(1, k // block)), tensor("float32", max(1, k // block), n)
        return (op(kernels.BLOCK_SCALED_GEMM, (left, right, *scales), (out,), block=128),)

    def cast(self, rows: int, columns: int, transposed: bool = True) -> tuple[OpSpec, ...]:
        """To 8 bit, with the transposed copy that the weight gradient takes; nothing in 16 bit.

        Scales of rows are not those of columns: compiled, each copy is a pass of its own, and the scale of a whole
        column is known when all rows have been read.
        """
        precision = self.layout.precision
        if not precision.is_fp8:
            return ()
        source, narrow = tensor(self.dtype, rows, columns), tensor(FP8_FORWARD, rows, columns)
        if precision is Precision.FP8_ROW:
            scaled = op(kernels.FUSED, (source,), (narrow, tensor("float32", rows)), ops=2)
            largest = op("aten.amax", (source,), (tensor("float32", columns),))
            return (scaled, largest, scaled) if transposed else (scaled,)
        if self.layout.compiled and precision in BLOCK_SCALES:
            scales = tensor("float32", rows, max(1, columns // BLOCK_SCALES[precision]))
            return (op(kernels.FUSED, (source,), (narrow, scales), ops=2),) * (2 if transposed else 1)
        return (op(kernels.FUSED, (source,), (narrow,) * (2 if transposed else 1), ops=2),)

    def _input_casts(self, rows: int, columns: int, split: str) -> tuple[OpSpec, ...]:
        """What makes a product's input 8 bit wide.

        Transformer Engine's norm writes 8 bits. TorchAO looks for scales as it goes, so its casts are passes behind the
        norm; where it gathers 8 bits, each rank casts its own tokens and turns all of them for the weight gradient.
        """
        layout = self.layout
        if not layout.compiled:
            behind_norm = split == "column" and layout.fused
            return () if behind_norm else self.cast(rows, columns)
        if split == "column" and layout.tensor > 1 and layout.precision is Precision.FP8:
            whole = tensor(FP8_FORWARD, rows, columns)
            own = rows // layout.tensor if layout.sequence_parallel else rows
            return (*self.cast(own, columns, transposed=False), op("aten.clone", (whole,), (whole,)))
        return self.cast(rows, columns)

    def _weight_casts(self, wide_in: int, wide_out: int) -> tuple[OpSpec, ...]:
        """Under FSDP2 weights arrive in 16 bit: their scale is looked for, and they are cast, at every use."""
        layout = self.layout
        if not layout.precision.is_fp8 or not layout.by_dtensor or layout.fp8_parameters:
            return ()
        weight, narrow = tensor(self.dtype, wide_out, wide_in), tensor(FP8_FORWARD, wide_out, wide_in)
        cast = op(kernels.FUSED, (weight,), (narrow,), ops=2)
        if layout.precision is not Precision.FP8:
            return (cast,)
        return op("aten.amax", (weight,), (tensor("float32", 1),)), cast

    def linear(
        self,
        name: str,
        rows: int,
        wide_in: int,
        wide_out: int,
        *,
        split: str = "",
        bias: bool = False,
        cast_input: bool = True,
        adapted: bool = False,
        parts: tuple[int, ...] = (),
    ) -> Piece:
        """One product with its gradients.

        Args:
            rows: tokens of the product. wide_in, wide_out: sizes on this rank, after splitting.
            split: ``column`` (input gathered), ``row`` (sums scattered) or nothing.
            adapted: low-rank adapters sit beside this product where the layout has any.
            parts: outputs that model code computes one by one; their input's gradients are added up.
        """
        casts = self._input_casts(rows, wide_in, split) if cast_input else ()
        weights = self._weight_casts(wide_in, wide_out)
        parts = parts or (wide_out,)
        forward = [*casts, *weights]
        inward: list[OpSpec] = []
        weight: list[OpSpec] = []
        trains = self.layout.trains_base
        x = tensor(self.dtype, rows, wide_in)
        for number, part in enumerate(parts):
            forward += self.product(rows, part, wide_in)
            inward += self.product(rows, wide_in, part, backward=True)
            inward += [op("aten.add.Tensor", (x, x), (x,))] if number and not self.layout.compiled else []
            if trains:
                weight += self.product(part, wide_in, rows, self.gradient, backward=True, turned=True)
                weight += self.into_buffer(part, wide_in)
        if len(parts) > 1 and self.layout.compiled and self.layout.precision.is_fp8:
            # 16-bit products add up what is there (`addmm`), 8-bit ones are added up in one pass
            inward += [op(kernels.FUSED, (x,) * len(parts), (x,), ops=len(parts) - 1)]
        if bias:
            b = tensor(self.dtype, wide_out)
            y = tensor(self.dtype, rows, wide_out)
            # fused layers add it at the end of the product or with what follows, Transformer Engine sums its
            # gradient there, too; PyTorch's own layers add it with the product, Megatron-LM's behind it
            behind = not self.layout.fused and self.layout.sharding is not Sharding.FSDP
            forward += [op("aten.add.Tensor", (y, b), (y,))] if behind else []
            by_itself = trains and not (self.layout.fused and self.layout.host is HostLoad.FUSED)
            weight += [op("aten.sum.dim_IntList", (y,), (b,))] if by_itself else []
        before = self.cast(rows, wide_out)
        backward = [*before, *weights, *inward]
        split = split if self.layout.tensor > 1 and not at_boundaries(self.layout) else ""
        if split == "column":
            forward, backward, weight = self._column(rows, wide_in, forward, backward, weight, len(parts))
        elif split == "row":
            forward, backward = self._row(rows, wide_in, wide_out, forward, backward)
        parameters = wide_in * wide_out + (wide_out if bias else 0)
        rank = self.layout.adapter_rank if adapted else 0
        if rank:
            beside, back, learn = self._adapter(rows, wide_in, wide_out, rank)
            forward, backward, weight = [*forward, *beside], [*backward, *back], [*weight, *learn]
        adapters = rank * (wide_in + wide_out)
        return Piece(
            name,
            tuple(forward),
            tuple(backward),
            tuple(weight),
            parameters=parameters,
            adapter_parameters=adapters,
        )

    def _adapter(
        self, rows: int, wide_in: int, wide_out: int, rank: int
    ) -> tuple[list[OpSpec], list[OpSpec], list[OpSpec]]:
        """y += (x A) B: forward, gradients passed on, gradients of A and B."""

        def mm(m: int, k: int, n: int) -> OpSpec:
            return op(
                "aten.mm", (tensor(self.dtype, m, k), tensor(self.dtype, k, n)), (tensor(self.dtype, m, n),)
            )

        y, x = tensor(self.dtype, rows, wide_out), tensor(self.dtype, rows, wide_in)
        forward = [mm(rows, wide_in, rank), mm(rows, rank, wide_out), op("aten.add.Tensor", (y, y), (y,))]
        back = [mm(rows, wide_out, rank), mm(rows, rank, wide_in), op("aten.add.Tensor", (x, x), (x,))]
        return forward, back, [mm(rank, rows, wide_out), mm(wide_in, rows, rank)]

    def _overlaps(self, parts: int = 1) -> bool:
        """Whether tensor-parallel traffic runs beside the product that it is for.

        What is gathered arrives rank by rank, the own share first; sums leave share by share. The shares of a product
        run on several streams (three in Transformer Engine), so that together they fill the card as the whole does.
        """
        return self.layout.overlap_tensor and self.layout.sequence_parallel and parts == 1

    def _shares(self) -> int:
        """Shares in which sums leave: as many as ranks, 16-bit ones four (Megatron Bridge's `comm_overlap.py`)."""
        tensor = self.layout.tensor
        return tensor if self.layout.precision.is_fp8 else min(PIPELINED_SPLITS, tensor)

    def _parts(self, rows: int, width: int) -> tuple[TensorSpec, TensorSpec]:
        return tensor(self.dtype, rows // self.layout.tensor, width), tensor(self.dtype, rows, width)

    def _gathered(self, rows: int, width: int, work: int = -1) -> OpSpec:
        """Gathering a product's input over the tensor ranks; of 8-bit products in 8 bits, where layers are fused."""
        layout = self.layout
        narrow = layout.fused and layout.precision in (Precision.FP8, Precision.MXFP8)
        dtype = FP8_FORWARD if narrow else self.dtype
        part, whole = tensor(dtype, rows // layout.tensor, width), tensor(dtype, rows, width)
        return collective("_allgather_base_", TENSOR, part, whole, work)

    def _scattered(self, rows: int, width: int, products: list[OpSpec]) -> list[OpSpec]:
        """Products whose sums leave beside them, the last share when they are done.

        PyTorch copies shares and sums all of them at the end (`fused_matmul_reduce_scatter`).
        """
        shares = self._shares()
        last = max(1, rows // shares)

        def leave(count: int, work: int = -1) -> OpSpec:
            whole = tensor(self.dtype, count, width)
            part = tensor(self.dtype, max(1, count // self.layout.tensor), width)
            return collective("_reduce_scatter_base_", TENSOR, whole, part, work)

        part, whole = self._parts(rows, width)
        added = [op("aten.sum.dim_IntList", (whole,), (part,))] if self.layout.by_dtensor else []
        if shares == 1:
            return [*products, leave(rows), *added]
        return [
            *products[:-1],
            leave(rows - last, _SCATTER_WORK),
            products[-1],
            wait(_SCATTER_WORK),
            leave(last),
            *added,
        ]

    def _gathering(self, width: int, products: list[OpSpec]) -> list[OpSpec]:
        """Products of what DTensor gathers, pipelined with it where PyTorch finds them.

        `torch/_inductor/fx_passes/micro_pipeline_tp.py` takes products that read what was gathered, and no other
        operation: scales by row are looked for in 16 bits behind the gather.
        """
        if self.layout.precision.is_fp8 and self.layout.precision is not Precision.FP8:
            return [*gather(self.layout, width), *products]
        early = self._gathered(self.layout.tokens, width, _GATHER_WORK)
        return [early, *products, wait(_GATHER_WORK)]

    def _scattering(self, rows: int, width: int, backward: list[OpSpec], products: int) -> list[OpSpec]:
        """Gradients of an input that DTensor sums and scatters: beside the product, if they come from a single one.

        The same pass looks for a product whose result is scattered; a sum of several products is none.
        """
        if products == 1:
            return self._scattered(rows, width, backward)
        return [*backward, *cut(self.layout, width), *scatter(self.layout, width)]

    def _column(
        self,
        rows: int,
        width: int,
        forward: list[OpSpec],
        backward: list[OpSpec],
        weight: list[OpSpec],
        products: int,
    ) -> tuple[list[OpSpec], list[OpSpec], list[OpSpec]]:
        part, whole = self._parts(rows, width)
        if not self.layout.sequence_parallel and self.layout.host is HostLoad.EAGER_2021:
            # autograd's backward of the product is done with both gradients before the sum is asked for
            return forward, [*backward, *weight, collective("allreduce_", TENSOR, whole, whole)], []
        if not self.layout.sequence_parallel:
            # the input gradient is summed beside the weight gradient
            reduce = collective("allreduce_", TENSOR, whole, whole, _SCATTER_WORK)
            return forward, [*backward, reduce, *weight, wait(_SCATTER_WORK)], []
        gather = self._gathered(rows, width)
        again = self._gathered(rows, width, _GATHER_WORK)
        scatter = collective("_reduce_scatter_base_", TENSOR, whole, part, _SCATTER_WORK)
        overlaps = self._overlaps(1 if self.layout.fused else 2)
        if weight and self.layout.by_dtensor:  # what was gathered is kept
            return self._gathering(width, forward), self._scattering(rows, width, backward, products), weight
        if weight:
            both = [again, *backward, wait(_GATHER_WORK), scatter, *weight, wait(_SCATTER_WORK)]
        elif overlaps:  # frozen: nobody needs the input again
            both = self._scattered(rows, width, backward)
        else:
            both = [*backward, collective("_reduce_scatter_base_", TENSOR, whole, part)]
        if overlaps:
            return [again, *forward, wait(_GATHER_WORK)], both, []
        return [gather, *forward], both, []

    def _row(
        self, rows: int, wide_in: int, wide_out: int, forward: list[OpSpec], backward: list[OpSpec]
    ) -> tuple[list[OpSpec], list[OpSpec]]:
        part, whole = self._parts(rows, wide_out)
        if not self.layout.sequence_parallel:
            return [*forward, collective("allreduce_", TENSOR, whole, whole)], backward
        if self._overlaps() and self.layout.by_dtensor:
            return self._scattered(rows, wide_out, forward), self._gathering(wide_out, backward)
        if self._overlaps():
            early = self._gathered(rows, wide_out, _GATHER_WORK)
            return self._scattered(rows, wide_out, forward), [early, *backward, wait(_GATHER_WORK)]
        scatter = collective("_reduce_scatter_base_", TENSOR, whole, part)
        return [*forward, scatter], [self._gathered(rows, wide_out), *backward]

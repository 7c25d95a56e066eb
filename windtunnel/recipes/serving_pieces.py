"""What the layers of a serving step are made of: products with their casts, norms, activations, sums over ranks."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.program import kernels
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.recipes.architecture import Architecture, LayerShape
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Layout, Precision
from windtunnel.recipes.linear import FP4, FP8_FORWARD, Products
from windtunnel.recipes.piece import collective, op, tensor
from windtunnel.recipes.serving_layout import TENSOR, ServingLayout
from windtunnel.specs.model import Norm


@dataclass(frozen=True, slots=True)
class StepPieces:
    """Of one rank's step over ``batches``, ``tokens`` in all."""

    model: Architecture
    layout: ServingLayout
    batches: tuple[Batch, ...]
    tokens: int

    @property
    def decodes(self) -> bool:
        """Whether every sequence runs the decode kernels."""
        return all(batch.decodes for batch in self.batches)

    def _hidden(self) -> TensorSpec:
        return tensor(self.layout.precision.activation, self.tokens, self.model.hidden)

    def _products(self, wide: bool = False) -> Products:
        precision = self.layout.precision
        if wide:
            precision = Precision.FP16 if precision is Precision.FP16 else Precision.BF16
        return Products(Layout(cards=1, global_batch=1, sequence=self.tokens, precision=precision))

    def _linear(
        self, rows: int, wide_in: int, wide_out: int, written: bool = False, wide: bool = False
    ) -> list[OpSpec]:
        """A product; ``written``: by a norm or an activation, which write the product's own format if they know
        its scale. ``wide``: in 16 bit.
        """
        products = self._products(wide)
        bare = wide or (written and self._static)
        casts = () if bare else products.cast(rows, wide_in, transposed=False)
        return [*casts, *products.product(rows, wide_out, wide_in)]

    @property
    def _static(self) -> bool:
        """Whether scales come with the weights (one a tensor): engines then cast in the kernel before."""
        return self.layout.precision in (Precision.FP8, Precision.NVFP4)

    @property
    def _written(self) -> str:
        """What norms and activations write in front of a product."""
        if not self._static:
            return self.layout.precision.activation
        return FP4 if self.layout.precision is Precision.NVFP4 else FP8_FORWARD

    def _norm(self, shape: LayerShape, written: str) -> list[OpSpec]:
        x, w = self._hidden(), tensor(self.layout.precision.activation, self.model.hidden)
        out = tensor(written, *x.shape)
        if shape.norm is Norm.LAYER:
            mean = tensor("float32", self.tokens, 1)
            added = op("aten.add.Tensor", (x, x), (x,))
            return [added, op("aten.native_layer_norm", (x, w, w), (out, mean, mean))]
        return [op(kernels.FUSED_ADD_RMS_NORM, (x, x, w), (out, x))]

    def _summed(self) -> list[OpSpec]:
        if self.layout.tensor == 1:
            return []
        return [collective("allreduce_", TENSOR, self._hidden(), self._hidden())]

    def _activation(self, rows: int, width: int, gated: bool, written: str) -> OpSpec:
        dtype = self.layout.precision.activation
        out = tensor(written, rows, width)
        if gated:
            return op(kernels.SWIGLU, (tensor(dtype, rows, 2 * width),), (out,))
        return op("aten.gelu", (tensor(dtype, rows, width),), (out,))

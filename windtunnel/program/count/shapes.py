"""Sizes, traffic and precisions shared by all counters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from windtunnel.errors import WindtunnelError
from windtunnel.program.op import DTYPE_BYTES, OpSpec, TensorSpec
from windtunnel.program.work import Family, Work

Counter = Callable[[OpSpec], Work]


def names(text: str) -> list[str]:
    """Names written as running text, separated by blanks."""
    return text.split()


def table(counter: Counter, text: str) -> dict[str, Counter]:
    """The same counter for every name in ``text``."""
    return dict.fromkeys(names(text), counter)


# Vector arithmetic of one element. Exponentials, logarithms, roots and trigonometry run on the special
# function units, at 1/4 (compute capability 8.0) to 1/8 (9.0) of the FP32 rate: CUDA C++ Programming Guide,
# "Arithmetic Instructions". The slower ratio is used.
ARITHMETIC = 1.0
SPECIAL = 8.0

_PRECISIONS = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "float64": "fp64",
    "complex32": "fp16",
    "complex64": "fp32",
    "complex128": "fp64",
    "float4_e2m1fn_x2": "fp4",
    "float4_e2m1fn": "fp4",
    "int8": "int8",
    "uint8": "int8",
}
# overloads whose trailing inputs are results to be written, beyond "out" and "<something>_out"
_OUT_OVERLOADS = frozenset(
    names("""
    L Q U X a dim_max dim_min dim_values eigenvalues eigvals grad_input inverse out_ out_mode
    out_rcond_tensor out_tol_tensor output result sign values values_stable OutTensor OutScalar_Other
    OutScalar_Self
    """)
)


def precision_of(dtype: str) -> str:
    """The key of ``Chip.peak_flops`` for products of this dtype; integers count as fp32."""
    if dtype.startswith("float8"):
        return "fp8"
    return _PRECISIONS.get(dtype, "fp32")


def vector_precision(tensors: Iterable[TensorSpec]) -> str:
    """What the vector units compute in: fp64 when any operand is double, else fp32."""
    doubles = ("float64", "complex128")
    return "fp64" if any(tensor.dtype in doubles for tensor in tensors) else "fp32"


def element_bytes(dtype: str) -> float:
    """Bytes of one element. Raises E520 for a dtype without a known size."""
    try:
        return DTYPE_BYTES[dtype]
    except KeyError:
        raise WindtunnelError(
            "E520",
            f"the size of dtype `{dtype}` is not known",
            hint="use one of the dtypes listed in windtunnel/program/op.py, or cast before the operation",
            values={"dtype": dtype},
        ) from None


def nbytes(tensors: Iterable[TensorSpec]) -> float:
    """Bytes of the elements of all tensors, broadcast dimensions once."""
    whole = 0.0
    for tensor in tensors:
        element_bytes(tensor.dtype)
        whole += tensor.nbytes
    return whole


def overload(spec: OpSpec) -> str:
    """``aten.add.Tensor`` → ``Tensor``."""
    parts = spec.name.split(".", 2)
    return parts[2] if len(parts) > 2 else ""


def is_out_variant(spec: OpSpec) -> bool:
    """Whether results are given as trailing ``out=`` arguments."""
    name = overload(spec)
    return name == "out" or name.endswith("_out") or name in _OUT_OVERLOADS


def is_in_place(spec: OpSpec) -> bool:
    """Whether the operation writes its first argument (``add_``)."""
    base = spec.base_name
    return base.endswith("_") and not base.endswith("__")


def arguments(spec: OpSpec) -> tuple[TensorSpec, ...]:
    """Tensor inputs without ``out=`` arguments."""
    if is_out_variant(spec) and spec.outputs and len(spec.inputs) > len(spec.outputs):
        return spec.inputs[: -len(spec.outputs)]
    return spec.inputs


def results(spec: OpSpec) -> tuple[TensorSpec, ...]:
    """Tensors written: the outputs, or the first argument of an in-place operation without any."""
    if spec.outputs:
        return spec.outputs
    return spec.inputs[:1] if is_in_place(spec) else ()


def read_bytes(spec: OpSpec) -> float:
    """Every argument read once."""
    return nbytes(arguments(spec))


def written_bytes(spec: OpSpec) -> float:
    """Every result written once."""
    return nbytes(results(spec))


def first(spec: OpSpec) -> TensorSpec:
    """The first input, or the first output of an operation without inputs, or an empty tensor."""
    for tensor in (*spec.inputs, *spec.outputs):
        return tensor
    return TensorSpec("float32", (0,))


def result(spec: OpSpec) -> TensorSpec:
    """The first result, or the first input where there is none."""
    for tensor in results(spec):
        return tensor
    return first(spec)


def last_dim(tensor: TensorSpec) -> int:
    """Size of the last dimension, 1 for a scalar."""
    return tensor.shape[-1] if tensor.shape else 1


def rows_of(tensor: TensorSpec, columns: int) -> int:
    """How many rows of ``columns`` elements a tensor has."""
    return tensor.numel // columns if columns else 0


def number(spec: OpSpec, name: str, default: float = 0.0) -> float:
    """A numeric attribute, or ``default`` when absent or None."""
    value = spec.attribute(name)
    return float(value) if isinstance(value, (int, float)) else default


def integers(spec: OpSpec, name: str) -> tuple[int, ...]:
    """A list attribute of integers, or () when absent."""
    value = spec.attribute(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    return tuple(int(v) for v in value if v is not None) if isinstance(value, tuple) else ()


def dimension(tensor: TensorSpec, dim: float) -> int:
    """Size along ``dim`` (negative counts from the end), 1 for a scalar."""
    return tensor.shape[int(dim)] if -len(tensor.shape) <= dim < len(tensor.shape) else 1


def streaming(
    spec: OpSpec,
    family: Family,
    vector_flops: float = 0.0,
    *,
    bytes_read: float | None = None,
    bytes_written: float | None = None,
    kernels: int = 1,
    variant: str = "",
    dims: tuple[tuple[str, float], ...] = (),
) -> Work:
    """Work of an operation that passes once over its arguments and results, unless told otherwise."""
    return Work(
        family=family,
        vector_flops=vector_flops,
        bytes_read=read_bytes(spec) if bytes_read is None else bytes_read,
        bytes_written=written_bytes(spec) if bytes_written is None else bytes_written,
        precision=vector_precision((*spec.inputs, *spec.outputs)),
        kernels=kernels,
        variant=variant,
        dims=dims,
    )


def rows_columns(rows: float, columns: float) -> tuple[tuple[str, float], ...]:
    """The dims of the row-wise families."""
    return (("rows", float(rows)), ("columns", float(columns)))


def product(sizes: Iterable[int]) -> int:
    """Product of sizes, 1 for none."""
    return math.prod(sizes)

"""Families, bytes and kernels of single operations, worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.errors import WindtunnelError
from windtunnel.program.count import is_counted, work_of
from windtunnel.program.op import Attribute, OpSpec, TensorSpec
from windtunnel.program.work import Family


def t(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(dtype, shape)


def ids(*shape: int) -> TensorSpec:
    return t(*shape, dtype="int64")


def op(
    name: str,
    inputs: tuple[TensorSpec, ...] = (),
    outputs: tuple[TensorSpec, ...] = (),
    **attributes: Attribute,
) -> OpSpec:
    return OpSpec(name, inputs, outputs, tuple(attributes.items()))


VIEWS = """
view.default _unsafe_view.default t.default transpose.int permute.default expand.default slice.Tensor
select.int squeeze.dim unsqueeze.default detach.default alias.default as_strided.default split.Tensor
split_with_sizes.default unbind.int view_as_real.default empty.memory_format empty_like.default
empty_strided.default new_empty.default unsafe_split.Tensor _reshape_alias.default lift_fresh.default
""".split()


@pytest.mark.parametrize("name", VIEWS)
def test_views_cost_no_kernel_and_no_bytes(name: str) -> None:
    work = work_of(op(f"aten.{name}", (t(4, 4),), (t(4, 4),)))
    assert (work.family, work.kernels, work.bytes_moved) == (Family.VIEW, 0, 0)


X = t(128, 64)  # 32 KiB
B = 128 * 64 * 4
TRAFFIC = [
    (op("aten.add.Tensor", (X, X), (X,)), Family.POINTWISE, 2 * B, B),
    (op("aten.add_.Tensor", (X, X), (X,)), Family.POINTWISE, 2 * B, B),
    (op("aten.add.out", (X, X, X), (X,)), Family.POINTWISE, 2 * B, B),
    (
        op("aten.mul.Tensor", (X, TensorSpec("float32", (128, 64), (0, 1))), (X,)),
        Family.POINTWISE,
        B + 256,
        B,
    ),
    (op("aten.copy_.default", (X, X), (X,)), Family.COPY, B, B),
    (op("aten._to_copy.default", (X,), (t(128, 64, dtype="bfloat16"),)), Family.COPY, B, B / 2),
    (op("aten._to_copy.default", (X,), (X,), device="cpu"), Family.HOST_COPY, B, B),
    (op("aten.zero_.default", (X,), (X,)), Family.COPY, 0, B),
    (op("aten.fill_.Scalar", (X,), (X,), value=1.0), Family.COPY, 0, B),
    (op("aten.zeros.default", (), (X,)), Family.COPY, 0, B),
    (op("aten.normal_.default", (X,), (X,)), Family.RANDOM, 0, B),
    (op("aten.native_dropout.default", (X,), (X, t(128, 64, dtype="bool"))), Family.RANDOM, B, B + B / 4),
    (op("aten.cat.default", (X, X), (t(256, 64),)), Family.COPY, 2 * B, 2 * B),
    (op("aten.sum.dim_IntList", (X,), (t(128),)), Family.REDUCTION, B, 512),
    (op("aten._softmax.default", (X,), (X,), dim=-1), Family.SOFTMAX, B, B),
    (
        op("aten.embedding.default", (t(50_000, 64), ids(8)), (t(8, 64),)),
        Family.EMBEDDING,
        8 * 64 * 4 + 64,
        8 * 64 * 4,
    ),
    (
        op("aten.index.Tensor", (t(50_000, 64), ids(8)), (t(8, 64),)),
        Family.EMBEDDING,
        8 * 64 * 4 + 64,
        8 * 64 * 4,
    ),
    (op("aten.gather.default", (X, ids(128, 2)), (t(128, 2),)), Family.EMBEDDING, 128 * 2 * 12, 1024),
    (
        op("aten.index_put_.default", (t(50_000, 64), ids(8), t(8, 64)), (t(50_000, 64),)),
        Family.SCATTER,
        8 * 64 * 4 + 64,
        8 * 64 * 4,
    ),
    (
        op("aten.index_add_.default", (t(50_000, 64), ids(8), t(8, 64)), (t(50_000, 64),)),
        Family.SCATTER,
        2 * 8 * 64 * 4 + 64,
        8 * 64 * 4,
    ),
    (
        op("aten.scatter_add_.default", (X, ids(4, 4), t(8, 8)), (X,)),
        Family.SCATTER,
        2 * 64 + 128,
        64,
    ),
    (op("aten.nll_loss_forward.default", (X, ids(128)), (t(), t())), Family.REDUCTION, 128 * 12, 8),
    (op("aten.masked_fill_.Scalar", (X, t(128, 64, dtype="bool")), (X,)), Family.POINTWISE, B + B / 4, B),
    (op("windtunnel.host_copy", (X,), (X,), direction="h2d"), Family.HOST_COPY, B, B),
    (op("windtunnel.fused", (X, X), (X,), ops=7), Family.POINTWISE, 2 * B, B),
    (op("windtunnel.item", (t(),)), Family.HOST, 4, 0),
    (op("mylib.anything.default", (X,), (X,)), Family.UNKNOWN, B, B),
]


@pytest.mark.parametrize(("spec", "family", "read", "written"), TRAFFIC, ids=lambda v: getattr(v, "name", ""))
def test_traffic(spec: OpSpec, family: Family, read: float, written: float) -> None:
    work = work_of(spec)
    assert (work.family, work.bytes_read, work.bytes_written) == (family, read, written)


def test_dims_of_the_row_wise_families() -> None:
    norm = work_of(
        op("aten.native_layer_norm.default", (t(2, 8, 64), t(64), t(64)), (X,), normalized_shape=(64,))
    )
    assert (norm.dim("rows"), norm.dim("columns")) == (16, 64)
    rms = work_of(op("windtunnel.rms_norm", (t(2, 8, 64), t(64)), (t(2, 8, 64),)))
    assert (rms.dim("rows"), rms.dim("columns")) == (16, 64)
    top = work_of(op("aten.topk.default", (t(16, 512),), (t(16, 8), ids(16, 8)), k=8, dim=-1))
    assert (top.family, top.dim("rows"), top.dim("columns")) == (Family.SORT, 16, 512)
    scan = work_of(op("aten.cumsum.default", (t(16, 512),), (t(16, 512),), dim=0))
    assert (scan.family, scan.dim("rows"), scan.dim("columns")) == (Family.SCAN, 512, 16)


def test_a_fused_optimizer_reads_and_writes_its_states() -> None:
    tensors = (t(1000), t(24))
    steps = (t(), t())
    spec = op("aten._fused_adamw_.default", (*tensors * 4, *steps), (), amsgrad=False)
    work = work_of(spec)
    assert work.family is Family.OPTIMIZER
    assert (work.dim("elements"), work.dim("tensors")) == (1024, 2)
    assert work.bytes_read == 4 * 1024 * 4 + 8
    assert work.bytes_written == 3 * 1024 * 4
    amsgrad = work_of(op("aten._fused_adamw_.default", (*tensors * 5, *steps), (), amsgrad=True))
    assert amsgrad.bytes_written == 4 * 1024 * 4


def test_foreach_writes_the_list_it_owns() -> None:
    tensors = (t(1000), t(24))
    assert work_of(op("aten._foreach_add_.List", tensors * 2)).bytes_written == 4096
    assert work_of(op("aten._foreach_mul_.Scalar", tensors)).bytes_written == 4096
    assert work_of(op("aten._foreach_mul_.Tensor", (*tensors, t()))).bytes_written == 4096
    assert work_of(op("aten._foreach_addcdiv_.ScalarList", tensors * 3)).bytes_written == 4096
    norms = work_of(op("aten._foreach_norm.Scalar", tensors, (t(), t())))
    assert (norms.bytes_read, norms.bytes_written) == (4096, 8)
    copied = work_of(op("aten._foreach_copy_.default", tensors * 2))
    assert (copied.family, copied.bytes_read, copied.bytes_written) == (Family.COPY, 4096, 4096)
    cast = work_of(op("aten._foreach_copy_.default", (t(1000, dtype="bfloat16"), t(1000))))
    assert (cast.bytes_read, cast.bytes_written) == (4000, 2000)


def test_sharded_parameters_are_copied_in_and_out() -> None:
    shards, gathered = (t(96, dtype="bfloat16"), t(32, dtype="bfloat16")), t(1024, dtype="bfloat16")
    into = work_of(
        op("fsdp.all_gather_copy_in.default", (*shards, gathered), (t(128, dtype="bfloat16"), gathered))
    )
    assert (into.family, into.bytes_read, into.bytes_written) == (Family.COPY, 256, 256)
    whole = (t(8, 96, dtype="bfloat16"), t(8, 32, dtype="bfloat16"))
    out = work_of(op("fsdp.split_with_sizes_copy.default", (t(8, 128, dtype="bfloat16"), *whole)))
    assert (out.bytes_read, out.bytes_written) == (2048, 2048)
    reduced = work_of(op("fsdp.chunk_cat.default", (*whole, t(8, 128))))
    assert (reduced.bytes_read, reduced.bytes_written) == (2048, 4096)


@pytest.mark.parametrize(
    ("tensors", "elements", "launches"), [(1, 10, 1), (110, 10, 1), (111, 10, 2), (1, 320 * 65536, 1)]
)
def test_foreach_launches_as_multi_tensor_apply(tensors: int, elements: int, launches: int) -> None:
    assert work_of(op("aten._foreach_mul_.Scalar", (t(elements),) * tensors)).kernels == launches


def test_decode_attention_knows_its_cache() -> None:
    q, k = t(4, 32, 1, 128, dtype="bfloat16"), t(4, 8, 1000, 128, dtype="bfloat16")
    work = work_of(op("aten.scaled_dot_product_attention.default", (q, k, k), (q,)))
    assert work.family is Family.DECODE_ATTENTION
    assert work.dim("kv_bytes_per_token") == 8 * 256 * 2
    paged = work_of(
        op(
            "windtunnel.paged_attention",
            (t(2, 1, 32, 128), t(999, 16, 8, 128), t(999, 16, 8, 128)),
            (),
            kv_lens=(100, 300),
        )
    )
    assert paged.dim("kv_len") == 200
    assert paged.bytes_read == 2 * 32 * 128 * 4 + 400 * 8 * 256 * 4
    latent = work_of(
        op("windtunnel.mla_decode", (t(2, 1, 16, 576), t(99, 576)), (t(2, 1, 16, 512),), kv_len=50)
    )
    assert (latent.family, latent.variant) == (Family.DECODE_ATTENTION, "mla")
    assert latent.flops == 2 * 2 * 16 * 50 * (576 + 512)
    assert latent.dim("kv_bytes_per_token") == 576 * 4


def test_grouped_products_by_any_name() -> None:
    a, b, out = t(96, 32), t(4, 32, 16), t(96, 16)
    expected = 2 * 96 * 32 * 16
    for name in ("aten._grouped_mm.default", "windtunnel.grouped_gemm"):
        work = work_of(op(name, (a, b), (out,)))
        assert (work.family, work.flops) == (Family.GROUPED_GEMM, expected)
        assert [work.dim(d) for d in ("tokens", "n", "k", "experts")] == [96, 16, 32, 4]
    gradient = work_of(op("windtunnel.grouped_gemm", (t(96, 32), t(96, 16)), (t(4, 32, 16),)))
    assert gradient.flops == expected


def test_flex_attention_computes_the_density_of_its_mask() -> None:
    q = t(1, 4, 256, 64)
    whole = work_of(op("windtunnel.flex_attention", (q, q, q), (q,)))
    half = work_of(op("windtunnel.flex_attention", (q, q, q), (q,), density=0.5))
    assert half.flops == whole.flops / 2
    assert half.family is Family.ATTENTION


def test_deltanet_is_linear_in_length_and_backward_costs_three_times() -> None:
    def chunk(length: int, name: str = "gated_delta_chunk", lead: tuple[TensorSpec, ...] = ()) -> float:
        q, v, g = t(1, length, 4, 128), t(1, length, 8, 128), t(1, length, 8)
        return work_of(op(f"windtunnel.{name}", (*lead, q, q, v, g, g), (v,), chunk=64)).flops

    assert chunk(2048) == 2 * chunk(1024)
    assert chunk(1024, "gated_delta_chunk_backward", (t(1, 1024, 8, 128),)) == 3 * chunk(1024)


def test_a_fused_region_counts_its_operations_and_reads_only_the_rows_it_gathers() -> None:
    pointwise = work_of(op("windtunnel.fused", (X, X), (X,), names=("add.Tensor", "exp.default")))
    assert pointwise.dim("ops") == 9
    table, rows = t(50_000, 64), t(8, 64)
    gathering = work_of(
        op("windtunnel.fused", (table, ids(8)), (rows,), names=("embedding.default", "mul.Tensor"))
    )
    assert gathering.bytes_read == 8 * 64 * 4 + 64
    assert gathering.dim("elements") == 512


def test_deltanet_backward_finds_its_tensors_behind_a_state_gradient() -> None:
    q, v, g, state = t(1, 512, 4, 128), t(1, 512, 8, 64), t(1, 512, 8), t(1, 8, 128, 64)
    name = "windtunnel.gated_delta_chunk_backward.default"
    without = work_of(op(name, (v, q, q, v, g, g), (q,)))
    behind = work_of(op(name, (v, state, q, q, v, g, g, state), (q,)))
    assert without.dims == behind.dims
    assert (behind.dim("qk_dim"), behind.dim("v_dim"), behind.dim("heads")) == (128, 64, 8)


def test_a_window_counts_the_query_itself() -> None:
    q = t(1, 256, 4, 64)
    assert (
        work_of(op("windtunnel.flash_attention", (q, q, q), (q,), causal=True, window=63)).dim("window") == 64
    )
    assert (
        work_of(op("windtunnel.flash_attention", (q, q, q), (q,), causal=True, window=-1)).dim("window") == 0
    )


def test_a_custom_kernel_says_its_own_cost() -> None:
    told = work_of(
        op("windtunnel.custom", (X,), (X,), kernel="mine", flops=1e9, precision="bf16", bytes_read=10)
    )
    assert (told.flops, told.precision, told.bytes_read, told.bytes_written) == (1e9, "bf16", 10, B)


def test_a_dtype_of_unknown_size_is_refused() -> None:
    with pytest.raises(WindtunnelError) as refused:
        work_of(op("aten.add.Tensor", (t(4, dtype="quint4x2"),), (t(4),)))
    assert refused.value.code == "E520"


def test_every_core_operation_has_a_family() -> None:
    torch = pytest.importorskip("torch")
    names = {
        name.split("::")[1].split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::")
    }
    core = {
        name
        for name in names
        if (packet := getattr(torch.ops.aten, name, None)) is not None
        and any(torch.Tag.core in getattr(packet, overload).tags for overload in packet.overloads())
    }
    assert len(core) > 150
    assert [name for name in sorted(core) if not is_counted(f"aten.{name}.default")] == []


FAMILIES = [
    "aten.add.Tensor",
    "aten.mm.default",
    "aten._softmax.default",
    "aten.sum.default",
    "aten.copy.default",
]


@given(name=st.sampled_from(FAMILIES), n=st.integers(1, 512), more=st.integers(0, 512))
def test_larger_tensors_never_ask_for_less(name: str, n: int, more: int) -> None:
    small, large = (
        work_of(op(name, (t(size, size), t(size, size)), (t(size, size),), dim=-1)) for size in (n, n + more)
    )
    assert large.flops >= small.flops
    assert large.vector_flops >= small.vector_flops
    assert large.bytes_moved >= small.bytes_moved

"""FLOPs equal ``torch.utils.flop_counter`` on every operation it knows."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.unit.program.torch_specs import record
from windtunnel.program.count import work_of
from windtunnel.program.work import Family

aten = torch.ops.aten


def meta(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = False) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=grad)


def assert_equal_counts(run: Callable[[], object]) -> None:
    known = [(spec, count) for spec, count in record(run) if count is not None]
    assert known, "PyTorch's counter knows nothing here"
    for spec, count in known:
        assert work_of(spec).flops == count, spec.name


SIZES = [(1, 1, 1), (3, 5, 7), (128, 64, 32), (4096, 1, 512), (1, 4096, 4096)]


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_products(m: int, n: int, k: int, dtype: torch.dtype) -> None:
    a, b, bias = meta(m, k, dtype=dtype), meta(k, n, dtype=dtype), meta(n, dtype=dtype)
    assert_equal_counts(lambda: a @ b)
    assert_equal_counts(lambda: torch.addmm(bias, a, b))
    assert_equal_counts(lambda: torch.mm(a, b, out=meta(m, n, dtype=dtype)))
    batched = a.expand(6, m, k), b.expand(6, k, n)
    assert_equal_counts(lambda: torch.bmm(*batched))
    assert_equal_counts(lambda: torch.baddbmm(meta(6, m, n, dtype=dtype), *batched))


@pytest.mark.parametrize(("m", "n", "k"), [(16, 16, 16), (128, 256, 512)])
def test_scaled_product(m: int, n: int, k: int) -> None:
    a = meta(m, k).to(torch.float8_e4m3fn)
    b = meta(n, k).to(torch.float8_e4m3fn).t()
    scale = meta(1)
    assert_equal_counts(lambda: torch._scaled_mm(a, b, scale, scale, out_dtype=torch.bfloat16))


CONVOLUTIONS = [
    dict(zip(("channels", "out", "kernel", "stride", "padding", "groups", "transposed"), values))
    for values in itertools.chain(
        itertools.product([8], [16], [1, 3], [1, 2], [0, 1], [1], [False, True]),
        itertools.product([8], [8, 16], [3], [1, 2], [1], [2, 8], [False, True]),
    )
]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda case: "-".join(str(v) for v in case.values()))
def test_convolution_forward_and_backward(dims: int, case: dict[str, int]) -> None:
    x = meta(2, case["channels"], *[9] * dims, grad=True)
    first, second = case["out"], case["channels"] // case["groups"]
    if case["transposed"]:
        first, second = case["channels"], case["out"] // case["groups"]
    weight = meta(first, second, *[case["kernel"]] * dims, grad=True)
    name = f"conv_transpose{dims}d" if case["transposed"] else f"conv{dims}d"
    convolve = getattr(F, name)

    def run() -> None:
        out = convolve(x, weight, stride=case["stride"], padding=case["padding"], groups=case["groups"])
        out.backward(torch.empty_like(out))

    assert_equal_counts(run)
    for spec, _ in record(run):
        work = work_of(spec)
        if work.family is Family.CONVOLUTION:
            computed = 2 * work.dim("m") * work.dim("n") * work.dim("k") * work.dim("batch")
            assert work.flops >= computed > 0
            if case["groups"] == 1:
                assert work.flops == computed


def test_convolution_without_the_gradient_of_its_input() -> None:
    x, weight = meta(2, 8, 9, 9), meta(16, 8, 3, 3, grad=True)
    assert_equal_counts(lambda: (out := F.conv2d(x, weight)).backward(torch.empty_like(out)))


HEADS = [(4, 4), (8, 2), (6, 1)]
LENGTHS = [(16, 16), (1, 64), (32, 128)]
DIMS = [(64, 64), (192, 128)]
KINDS = ["flash_attention", "efficient_attention", "cudnn_attention"]


def _count(packet: object, args: tuple[object, ...]) -> int:
    return torch.utils.flop_counter.flop_registry[packet](*args, out_val=None)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_attention(
    heads: tuple[int, int], lengths: tuple[int, int], dims: tuple[int, int], kind: str
) -> None:
    from tests.unit.program.torch_specs import tensor_spec
    from windtunnel.program.op import OpSpec

    q = meta(2, heads[0], lengths[0], dims[0], dtype=torch.bfloat16)
    k = meta(2, heads[1], lengths[1], dims[0], dtype=torch.bfloat16)
    v = meta(2, heads[1], lengths[1], dims[1], dtype=torch.bfloat16)
    out = meta(2, heads[0], lengths[0], dims[1], dtype=torch.bfloat16)
    sq, sk, sv, so = map(tensor_spec, (q, k, v, out))
    forward = getattr(aten, f"_scaled_dot_product_{kind}")
    backward = getattr(aten, f"_scaled_dot_product_{kind}_backward")
    flags = (("is_causal", True),)
    ours = work_of(
        OpSpec(f"{forward.__name__}.default".replace("_scaled", "aten._scaled"), (sq, sk, sv), (so,), flags)
    )
    assert ours.flops == _count(forward, (q, k, v))
    theirs = _count(backward, (out, q, k, v))
    mine = work_of(
        OpSpec(
            f"aten._scaled_dot_product_{kind}_backward.default", (so, sq, sk, sv, so, so), (sq, sk, sv), flags
        )
    )
    assert mine.flops == theirs
    assert (mine.dim("heads"), mine.dim("kv_heads"), mine.dim("causal")) == (*heads, 1.0)
    overrideable = work_of(
        OpSpec("aten._scaled_dot_product_fused_attention_overrideable.default", (sq, sk, sv), (so,), flags)
    )
    assert overrideable.flops == ours.flops


@pytest.mark.parametrize("lens", [(8, 8), (3, 17, 44), (100,)])
def test_packed_attention_counts_its_true_lengths(lens: tuple[int, ...]) -> None:
    from tests.unit.program.torch_specs import tensor_spec
    from windtunnel.program.op import OpSpec

    tokens = sum(lens)
    q, k = meta(tokens, 8, 64), meta(tokens, 2, 64)
    starts = torch.tensor([0, *itertools.accumulate(lens)], dtype=torch.int32)
    theirs = _count(aten._flash_attention_forward, (q, k, k, starts, starts, max(lens), max(lens)))
    back = _count(aten._flash_attention_backward, (q, q, k, k, q, q, starts, starts, max(lens), max(lens)))
    sq, sk, cu = tensor_spec(q), tensor_spec(k), tensor_spec(starts)
    for name, extra in (
        ("aten._flash_attention_forward.default", ()),
        ("windtunnel.flash_attention_varlen", ()),
    ):
        spec = OpSpec(name, (sq, sk, sk, cu, cu), (sq, *extra), (("q_lens", lens), ("kv_lens", lens)))
        assert work_of(spec).flops == pytest.approx(theirs)
    spec = OpSpec(
        "windtunnel.flash_attention_varlen_backward",
        (sq, sq, sk, sk, sq, cu, cu),
        (sq, sk, sk),
        (("q_lens", lens),),
    )
    assert work_of(spec).flops == pytest.approx(back)
    longest = OpSpec(
        "aten._flash_attention_forward.default", (sq, sk, sk, cu, cu), (sq,), (("max_q", max(lens)),)
    )
    assert work_of(longest).flops == len(lens) * max(lens) ** 2 * 8 * 64 * 4


def test_a_whole_model_counts_the_same() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(16)
        )
        layer = torch.nn.TransformerEncoderLayer(64, 4, batch_first=True)
        image, text = torch.empty(2, 3, 16, 16), torch.empty(2, 10, 64)

    def run() -> None:
        model(image).sum().backward()
        layer(text).sum().backward()

    run()
    with FlopCounterMode(display=False) as counter:
        run()
    ours = sum(work_of(spec).flops for spec, count in record(run) if count is not None)
    assert ours == counter.get_total_flops()

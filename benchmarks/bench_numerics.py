"""Speed of emulated arithmetic, side by side with FP32 on the same core: ratios rather than times.

Lines without a target are for reading; ``python -m benchmarks`` shows the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial

import torch

from windtunnel.numerics import casts, compiled
from windtunnel.numerics.compiled import Engine
from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import BF16, E4M3, FloatFormat
from windtunnel.numerics.profiles import HOPPER, S5000, NumericProfile, Operand
from windtunnel.numerics.scaled import chip_block_scaled_mm, chip_scaled_mm
from windtunnel.numerics.scaling import ACTIVATION, S5000_BLOCK, WEIGHT, quantise
from windtunnel.numerics.training import RECIPES, TENSORWISE, LinearRecipe, fp8_linear

IDEAL = S5000.idealised()
LINEAR = "x nn.Linear"
MATMUL = "x FP32 mm"


def report(name: str, value: float, unit: str, target: float | None = None) -> None:
    if target is None:
        print(f"     {name:<58} {value:9.3f} {unit}")
    else:
        print(json.dumps({"name": name, "value": value, "unit": unit, "target": target}))


def side_by_side(
    reference: Callable[[], object], candidate: Callable[[], object], rounds: int = 9
) -> tuple[float, float]:
    """Best times in seconds, taken in turns so that a busy neighbour slows both."""
    best = [float("inf"), float("inf")]
    for attempt in range(rounds + 1):
        for index, call in enumerate((reference, candidate)):
            begin = time.perf_counter()
            call()
            if attempt:
                best[index] = min(best[index], time.perf_counter() - begin)
    return best[0], best[1]


def ratio(reference: Callable[[], object], candidate: Callable[[], object]) -> float:
    plain, emulated = side_by_side(reference, candidate)
    return emulated / plain


def linear_ratio(size: tuple[int, int, int], recipe: LinearRecipe) -> float:
    rows, width, out = size
    layer = torch.nn.Linear(width, out, bias=False)
    x, grad = torch.randn(rows, width, requires_grad=True), torch.randn(rows, out)

    def plain() -> None:
        x.grad = layer.weight.grad = None
        layer(x).backward(grad)

    def emulated() -> None:
        x.grad = layer.weight.grad = None
        fp8_linear(x, layer.weight, None, recipe, IDEAL).backward(grad)

    return ratio(plain, emulated)


def linears() -> None:
    name = "FP8 linear, forward + backward, per tensor"
    report(f"{name}, 1024^3", linear_ratio((1024, 1024, 1024), TENSORWISE), LINEAR, 1.0)
    for size in ((512, 512, 512), (512, 2048, 2048)):
        report(f"{name}, {'x'.join(map(str, size))}", linear_ratio(size, TENSORWISE), LINEAR)
    for recipe in RECIPES[1:]:
        report(
            f"FP8 linear, forward + backward, {recipe.name}, 1024^3",
            linear_ratio((1024, 1024, 1024), recipe),
            LINEAR,
        )


def products() -> None:
    x, w = torch.randn(1024, 1024), torch.randn(1024, 1024)

    def blocks() -> torch.Tensor:
        left = quantise(x, E4M3, ACTIVATION, S5000_BLOCK)
        return chip_block_scaled_mm(left, quantise(w, E4M3, WEIGHT, S5000_BLOCK), profile=IDEAL)

    plain = partial(torch.matmul, x, w.t())
    report("quantise in blocks of 128 and multiply, 1024^3", ratio(plain, blocks), MATMUL, 1.5)
    a, b, one = x.to(torch.float8_e4m3fn), w.to(torch.float8_e4m3fn).t(), torch.ones(())
    scaled = partial(chip_scaled_mm, a, b, one, one, profile=IDEAL, out_dtype=torch.bfloat16)
    report("_scaled_mm of float8 tensors, 1024^3", ratio(plain, scaled), MATMUL)
    report("decoding E4M3", ratio(a.float, partial(casts.values_of, a)), "x .float()")


def exact(
    operand: Operand, fmt: FloatFormat, profile: NumericProfile, engine: Engine, target: float | None
) -> None:
    rows = 512 if engine is Engine.COMPILED else 64
    a, b = casts.round_to(torch.randn(rows, 1024), fmt), casts.round_to(torch.randn(1024, 512), fmt)
    call = partial(exact_matmul, a, b, profile.accumulator(operand), (fmt, fmt), engine=engine)
    plain, emulated = side_by_side(partial(torch.matmul, a, b), call, rounds=3)
    name = f"bit-exact {profile.name} {operand}, {engine.value}, one core"
    report(name, emulated / (2e-9 * rows * 1024 * 512), "s/GFLOP", target)
    report(name, emulated / plain, MATMUL)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    linears()
    products()
    # 1 GFLOP/s compiled; without a compiler at least mmasim's 0.035 GFLOP/s.
    if compiled.library() is not None:
        exact(Operand.FP8, E4M3, HOPPER, Engine.COMPILED, 1.0)
        exact(Operand.BF16, BF16, HOPPER, Engine.COMPILED, None)
        exact(Operand.FP8, E4M3, S5000, Engine.COMPILED, None)
    exact(Operand.FP8, E4M3, HOPPER, Engine.TORCH, 1 / 0.035)


if __name__ == "__main__":
    main()

"""What backward computes again, operation by operation, as TorchTitan's ``SelectiveAC`` chooses it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tests.unit.recipes.architectures import DEEPSEEK_V3, LLAMA_8B
from windtunnel.program import kernels
from windtunnel.recipes.layout import EagerCode, Layout, Recompute, Sharding
from windtunnel.recipes.recompute import recomputed
from windtunnel.recipes.stages import layer_pieces

LAYOUT = Layout(
    cards=8,
    global_batch=8,
    sequence=2048,
    expert=4,
    sharding=Sharding.FSDP,
    fused=False,
    eager=EagerCode.TORCHTITAN,
    recompute=Recompute.SELECTIVE_OPS,
)


def again(layout: Layout, index: int, dense: bool = False) -> Counter[str]:
    """Operations of a layer that run again, by name."""
    model = LLAMA_8B if dense else DEEPSEEK_V3
    pieces = layer_pieces(model.layers[index], model.hidden, layout)
    return Counter(spec.name for piece in recomputed(pieces, layout) for spec in piece.forward)


def test_every_second_product_runs_again() -> None:
    # of queries-keys-values, output, gate, up, down: the second and the fourth
    assert again(LAYOUT, 0, dense=True)["aten.mm.default"] == 2


def test_experts_run_again_and_nothing_is_exchanged_again() -> None:
    found = again(LAYOUT, -1)
    # q down, q up, kv down, kv up, output, shared gate, up, down: four of eight, and the router's, which is not counted
    assert found["aten.mm.default"] == 5
    assert found[kernels.GROUPED_GEMM] == 3
    assert found["aten.scatter_add.default"] == 1
    assert not found["aten.topk.default"]
    assert not any(name.startswith("c10d.") for name in found)


def test_attention_is_kept_or_not() -> None:
    assert not again(LAYOUT, 0)[kernels.FLASH_ATTENTION]
    products_only = replace(LAYOUT, recompute=Recompute.SELECTIVE_PRODUCTS)
    assert again(products_only, 0)[kernels.FLASH_ATTENTION] == 1
    whole = again(replace(LAYOUT, recompute=Recompute.FULL), -1)
    assert any(name.startswith("c10d.") for name in whole)

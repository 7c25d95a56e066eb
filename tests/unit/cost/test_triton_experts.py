"""Triton's experts: tiles by the tokens of the layer, blocks that wait alone, rows gathered from memory."""

from __future__ import annotations

import numpy as np
import pytest

from windtunnel.cost.batch import Batch
from windtunnel.cost.block_waits import gathered_bytes, resident, wait_s
from windtunnel.cost.choose import choose
from windtunnel.cost.fit import Fit
from windtunnel.cost.grouped_gemm import times, weight_bytes
from windtunnel.cost.tiles import MENUS, TUNED_TRITON_EXPERTS, access_bytes, known_menu
from windtunnel.cost.tuned_experts import is_tuned
from windtunnel.program.work import Family
from windtunnel.specs.catalogue import chip
from windtunnel.validation.measured import batch

H100 = chip("h100-sxm")


def layer(
    rows: float, *, experts: float = 64.0, n: float = 2048.0, k: float = 4096.0, **more: float
) -> Batch:
    return batch(
        Family.GROUPED_GEMM, "bf16", {"tokens": rows, "n": n, "k": k, "experts": experts, "active": experts, **more},
        flops=2.0 * rows * n * k, bytes_read=2.0 * (rows * k + experts * n * k), bytes_written=2.0 * rows * n,
    )  # fmt: skip


def fit(library: str, **values: float) -> Fit:
    found = choose("grouped_gemm", H100, library=library, precision="bf16", repeated=True).fit
    return found.with_values({**dict(found.values), **values})


def seconds(work: Batch, given: Fit) -> float:
    return float(times(work, H100, given).seconds[0])


def test_rules_count_tokens_of_the_layer_or_tokens_for_each_expert() -> None:
    old, new = (
        int(known_menu("grouped_gemm", name, "bf16", "") or 0) for name in ("triton@sglang", "triton@vllm")
    )
    one = np.ones(1)
    assert MENUS[old].tiles(one, one, one).rows.item() == 16  # as many tokens as experts
    assert MENUS[old].tiles(1.01 * one, one, one).rows.item() == 64
    sizes = [(MENUS[new].tiles(t * one, one, one).rows.item()) for t in (32, 33, 96, 97, 512, 513)]
    assert sizes == [16, 32, 32, 64, 64, 128]
    assert MENUS[new].tiles(64 * one, one, one).columns.item() == 64
    assert MENUS[new].tiles(65 * one, one, one).columns.item() == 128


def test_a_token_too_many_for_its_experts_fills_tall_tiles_with_blanks() -> None:
    given = fit("triton@sglang", issue=500.0, edge=0.05)  # arithmetic rules
    few, many = layer(64.0, layer_tokens=64.0), layer(64.0, layer_tokens=65.0)
    assert seconds(many, given) > 1.5 * seconds(few, given)


def test_programs_that_do_not_say_their_tokens_have_rows_over_choices() -> None:
    given = fit("triton@sglang", issue=2e3)
    told, untold = layer(512.0, layer_tokens=64.0), layer(512.0, top_k=8.0)
    assert seconds(told, given) == seconds(untold, given)


def test_a_layer_whose_tiles_were_searched_for_is_no_slower() -> None:
    given = fit("triton@vllm")
    ruled = layer(4096.0, layer_tokens=1024.0)
    searched = layer(4096.0, layer_tokens=1024.0, menu=float(TUNED_TRITON_EXPERTS))
    assert seconds(searched, given) < seconds(ruled, given)


def test_tuned_layers_are_those_of_the_engines_packages() -> None:
    experts, width = np.array([16.0, 16.0, 128.0]), np.array([1024.0, 1025.0, 192.0])
    known = is_tuned("triton@sglang", "bf16", "", "h100-sxm", experts, width)
    assert known.tolist() == [True, False, True]
    assert is_tuned("triton@vllm-2025", "bf16", "", "a100-80g", experts, width).tolist() == [
        False,
        False,
        True,
    ]
    assert not is_tuned("cutlass@sglang", "bf16", "", "h100-sxm", experts, width).any()
    assert not is_tuned("triton@sglang", "bf16", "", "rtx-4080", experts, width).any()


def test_a_block_alone_waits_for_each_step_and_hides_behind_others() -> None:
    tile = np.array([64.0])
    at_once = resident(tile, tile)
    assert at_once.item() == 5
    assert resident(2 * tile, 2 * tile).item() == 1
    units = H100.multiprocessors.value
    alone = wait_s(np.array([1.0]), np.array([64.0]), at_once, H100, 500.0)
    full = wait_s(np.array([5.0 * units]), np.array([64.0]), at_once, H100, 500.0)
    assert alone == full == pytest.approx(64 * 500.0 / H100.clock_hz.value)
    assert wait_s(np.array([5.0 * units + 1]), np.array([64.0]), at_once, H100, 500.0) == pytest.approx(
        2 * full
    )


def test_rows_are_gathered_from_memory_once_tokens_leave_the_cache() -> None:
    row_bytes, strips = np.array([8192.0]), np.array([33.0])
    fits, spills = (0.2 * H100.l2_bytes.value / row_bytes, 5.0 * H100.l2_bytes.value / row_bytes)
    rows = np.array([1e5])
    assert gathered_bytes(rows, row_bytes, strips, fits, H100, 0.4) < 1e-3 * rows * row_bytes
    spilt = gathered_bytes(rows, row_bytes, strips, spills, H100, 0.4)
    assert spilt == pytest.approx(0.4 * 32 * rows * row_bytes, rel=1e-3)
    given = fit("triton@sglang", gathered=0.4)
    near, far = (
        layer(65536.0, layer_tokens=64.0, distinct_rows=500.0),
        layer(65536.0, layer_tokens=64.0, distinct_rows=65536.0),
    )
    assert seconds(near, given) < seconds(far, given)


def test_widths_that_sixteen_does_not_divide_are_read_element_by_element() -> None:
    assert access_bytes(np.array([464.0, 232.0]), "bf16").tolist() == [16.0, 2.0]
    assert access_bytes(np.array([464.0, 232.0]), "fp8").tolist() == [16.0, 1.0]
    given = fit("triton@sglang")
    whole, odd = (
        layer(8192.0, access=16.0, layer_tokens=1024.0),
        layer(8192.0, access=2.0, layer_tokens=1024.0),
    )
    assert seconds(odd, given) > 1.1 * seconds(whole, given)


def test_what_is_not_hidden_of_memory_adds_up() -> None:
    work = layer(8192.0, layer_tokens=1024.0)
    hidden, half, none = (seconds(work, fit("triton@vllm", serial=share)) for share in (1e-6, 0.5, 1.0))
    assert hidden < half < none
    assert none - half == pytest.approx(half - hidden, rel=0.2)


def test_four_bit_weights_are_counted_with_their_scales() -> None:
    assert weight_bytes("fp4", "") == 0.5625
    assert weight_bytes("fp8", "w4a8") == weight_bytes("bf16", "int4_wo") == 0.53125
    assert weight_bytes("fp8", "block128") == 1.0
    assert weight_bytes("bf16", "") == 2.0

"""When libraries split the keys of a sequence over blocks."""

from __future__ import annotations

import numpy as np
import pytest

from windtunnel.cost.splits import PARTS_MAX, RULES, SplitRule, parts
from windtunnel.validation.calibrate.kernel_families import STAGES
from windtunnel.validation.calibrate.kernel_fits import choices_of
from windtunnel.validation.calibrate.kernel_points import KernelPath

UNITS = 108.0
BY_NAME = {rule.name: rule for rule in RULES}


def split(
    rule: SplitRule, *, blocks: float, key_blocks: float, group: float = 8.0, most: float = 32.0
) -> float:
    one = np.ones(1)
    return float(parts(rule, blocks * one, key_blocks * one, group * one, UNITS, most)[0])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("blocks", [1.0, 7.0, 64.0, 128.0, 1000.0])
@pytest.mark.parametrize("key_blocks", [1.0, 3.0, 16.0, 1024.0])
def test_no_more_parts_than_steps_of_keys(rule: SplitRule, blocks: float, key_blocks: float) -> None:
    found = split(rule, blocks=blocks, key_blocks=key_blocks)
    assert 1.0 <= found <= min(key_blocks, PARTS_MAX)


def test_flash_attention_2_splits_until_two_blocks_a_multiprocessor_are_nearly_there() -> None:
    rule = BY_NAME["FA2"]
    assert split(rule, blocks=0.8 * 2 * UNITS, key_blocks=64.0) == 1.0
    assert (
        split(rule, blocks=128.0, key_blocks=4.0) == 4.0
    )  # two thirds of a wave: four parts fill two waves better
    assert split(rule, blocks=128.0, key_blocks=1.0) == 1.0
    assert split(rule, blocks=1.0, key_blocks=1024.0) > 64.0


def test_heads_that_share_no_cache_stay_whole_where_the_library_packs_only_groups() -> None:
    rule = BY_NAME["FA2, grouped"]
    assert split(rule, blocks=8.0, key_blocks=512.0, group=1.0) == 1.0
    assert split(rule, blocks=8.0, key_blocks=512.0, group=4.0) > 8.0


def test_flash_attention_3_leaves_short_caches_whole() -> None:
    rule = BY_NAME["FA3"]
    assert split(rule, blocks=4.0, key_blocks=4.0) == 1.0
    assert split(rule, blocks=4.0, key_blocks=5.0) > 1.0


def test_a_second_stage_of_triton_comes_whatever_the_shape() -> None:
    assert split(BY_NAME["fixed"], blocks=5000.0, key_blocks=512.0, most=8.0) == 8.0


def test_tensorrt_llm_splits_on_beyond_full_waves_but_sparingly() -> None:
    rule = BY_NAME["XQA"]
    assert split(rule, blocks=2.0, key_blocks=8.0) == 8.0
    assert split(rule, blocks=2.0, key_blocks=512.0) == 64.0  # √(8 × 512)
    assert split(rule, blocks=UNITS, key_blocks=512.0) == 8.0  # eight blocks a multiprocessor
    assert split(rule, blocks=20.0 * UNITS, key_blocks=512.0) == 1.0


def test_rules_of_one_kernel_are_tried_for_no_other() -> None:
    stage = next(item for item in STAGES if item.file == "decode_attention")

    def rules(library: str) -> set[str]:
        return {RULES[int(value)].name for _, value in choices_of(stage, KernelPath(library, "bf16", ""))}

    assert "XQA" in rules("trtllm@trtllm")
    assert not {"XQA", "XQA, window"} & rules("fa3@vllm")

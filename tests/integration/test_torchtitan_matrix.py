"""TorchTitan's models under its kinds of parallelism, as its trainer runs them: who is recorded, what they exchange
and how much they compute. The table of docs/cluster.md, cell by cell; `slow`, some 10 s of processor time each."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.integration.test_distributed_scripts import collectives, degrees, torchtitan

ON = "h100-sxm:8"
Kinds = frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Column:
    """A layout of 8 cards: collectives and group sizes that it must show, and the ranks that differ."""

    degrees: tuple[tuple[str, int | str], ...]
    expected: Kinds
    ranks: tuple[int, ...] = (0,)
    sharing: int = 1  # ranks that see the same tokens, or each a part of them
    besides: str = "0"  # ranks to record besides those found


def column(
    expected: str, ranks: tuple[int, ...] = (0,), sharing: int = 1, besides: str = "0", **named: int | str
) -> Column:
    """``expected``: ``all_gather 8, ...``."""
    words = [word.split() for word in expected.split(",")]
    kinds = frozenset((kind, int(size)) for kind, size in words)
    return Column(tuple(named.items()), kinds, ranks, sharing, besides)


COLUMNS = {
    "FSDP": column("all_gather 8, reduce_scatter 8"),
    "HSDP": column("all_gather 4, reduce_scatter 4, all_reduce 2", data_parallel_replicate_degree=2),
    "TP": column("all_gather 2, reduce_scatter 2, all_gather 4", sharing=2, tensor_parallel_degree=2),
    # of a sequence with several documents the two do not attend to equally much
    "CP": column(
        "all_gather 2, reduce_scatter 2, all_gather 8",
        ranks=(0, 1),
        sharing=2,
        besides="0,1",
        context_parallel_degree=2,
    ),
    "PP": column(
        "send 2, recv 2, all_gather 4, reduce_scatter 4",
        ranks=(0, 4),
        sharing=2,
        pipeline_parallel_degree=2,
        pipeline_parallel_schedule="1F1B",
    ),
    "EP": column("all_to_all 4, all_gather 2, reduce_scatter 2, all_gather 8", expert_parallel_degree=4),
    "EP + TP": column(
        "all_to_all 4, all_gather 2, reduce_scatter 2, all_gather 4",
        sharing=2,
        expert_parallel_degree=4,
        tensor_parallel_degree=2,
    ),
    "EP + PP": column(
        "all_to_all 2, send 2, recv 2, all_gather 4",
        ranks=(0, 4),
        sharing=2,
        expert_parallel_degree=2,
        pipeline_parallel_degree=2,
        pipeline_parallel_schedule="Interleaved1F1B",
    ),
}

MODELS = {
    "llama3_flex": "FSDP, HSDP, TP, CP, PP",
    "deepseek_v3_debug": "FSDP, HSDP, TP, CP, PP, EP, EP + TP, EP + PP",
    "qwen3_debug": "FSDP, HSDP, TP, CP",
    "qwen3_moe_debug": "FSDP, HSDP, TP, CP, PP, EP, EP + TP, EP + PP",
    "qwen3_5_debug": "FSDP, HSDP, TP",
    "qwen3_5_moe_debug": "FSDP, HSDP, TP, EP, EP + TP, EP + PP",
}
TOKENS = {"qwen3_5_debug": 512, "qwen3_5_moe_debug": 2 * 512}  # of one rank and step; the others: 8 x 2,048

CELLS = [(config, name) for config, names in MODELS.items() for name in names.split(", ")]

REFUSED = [
    ("qwen3_debug", "PP", "Weight tying is not supported with Pipeline Parallel"),
    ("qwen3_5_debug", "CP", "Context Parallel"),
    ("qwen3_5_moe_debug", "CP", "Context Parallel"),
]
"""What TorchTitan refuses, and its words."""


def run(folder: Path, config: str, name: str, status: int = 0) -> dict[str, Any]:
    """One cell, by the card's clock: what the trainer then prints of FLOP/s has enough digits to be read."""
    if "qwen3_5" in config and importlib.util.find_spec("torchvision") is None:
        for module in ("transforms/v2/functional", "io"):  # it is imported, and nothing of it is used on text
            (folder / "torchvision" / module).mkdir(parents=True)
    options = degrees(**dict(COLUMNS[name].degrees))
    before = ("--virtual-clock", "--ranks", COLUMNS[name].besides)
    return torchtitan(folder, config, ON, *options, before=before, status=status)


def own_flops_per_token(answer: dict[str, Any]) -> float:
    """What TorchTitan counts for a token, full attention: its FLOP/s over its tokens/s, as it prints them."""
    told = re.findall(r"tps: ([\d,]+).*?tflops: ([\d,.]+)", answer["stderr"])
    rate, tflops = (float(word.replace(",", "")) for word in told[-1])
    return tflops * 1e12 / rate


@cache
def reference(config: str) -> tuple[float, float]:
    """FLOPs of a token under FSDP alone, ours and TorchTitan's."""
    with TemporaryDirectory() as folder:
        answer = run(Path(folder), config, "FSDP")
    return answer["model_flops_per_token"], own_flops_per_token(answer)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "name"), CELLS)
def test_cell(tmp_path: Path, config: str, name: str) -> None:
    wanted = COLUMNS[name]
    answer = run(tmp_path, config, name)
    assert wanted.expected <= set(collectives(answer))
    assert [row["rank"] for row in answer["ranks"]] == list(wanted.ranks)
    assert sum(row["count"] for row in answer["ranks"]) == 8
    assert answer["tokens_per_step"] == 8 // wanted.sharing * TOKENS.get(config, 8 * 2048)
    ours, theirs = reference(config)
    # masks of documents and causal attention leave out some of what TorchTitan counts, nothing else does;
    # its count has no delta rule, which is 1.3 % of Qwen3.5's debug model
    most = 1.03 if "qwen3_5" in config else 1.01
    assert 0.5 * theirs < ours < most * theirs
    assert answer["model_flops_per_token"] == pytest.approx(ours, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "name", "words"), REFUSED)
def test_what_torchtitan_refuses_is_told_in_its_words(
    tmp_path: Path, config: str, name: str, words: str
) -> None:
    answer = run(tmp_path, config, name, status=2)
    assert answer["error"]["code"] == "E440"
    assert words in answer["stderr"] + str(answer["error"])

"""What MLPerf's submissions ran with, where their logs do not say.

Submitters publish their settings beside their logs, and most take NVIDIA's (mlcommons, closed division):

* v5.1 (inference_results_v5.1, 965182b): ``NVIDIA/configs/SYSTEM/SCENARIO/BENCHMARK.py`` for Blackwell, those that
  ASUSTeK, Cisco and Dell share for H200, ``RedHat/code/llama3.1-8b/run_*_submission.sh`` for vLLM;
* v4.1 (inference_results_v4.1, 198fc46): ``NVIDIA/configs/BENCHMARK/SCENARIO/__init__.py`` for Hopper, GH200 and
  H100 NVL among them, tokens of a step where a class has none in ``NVIDIA/configs/BENCHMARK/__init__.py``, and
  ``ASUSTeK/configs/llama2-70b/SCENARIO/custom.py`` for H100 PCIe.

All let TensorRT-LLM admit whatever its cache holds at the moment (``max_util``). Prompts are cut into chunks in v5.1
but for Mixtral on Blackwell and DeepSeek-R1, not in v4.1, whose code does not ask for it. A card that a round has
nothing for takes the other round's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from windtunnel.serving.attention_dp import AttentionDpOptions
from windtunnel.serving.kernel_library import Stack

V41, V51 = "v4.1", "v5.1"


@dataclass(frozen=True, slots=True)
class Settings:
    """One replica's.

    Attributes:
        tensor: ranks that share every product (or tokens, where attention is data-parallel). pipeline: stages.
        sequences, tokens: most of a step. cache_share: of free memory; vLLM's: of all memory.
        lasting_s: a load offline lasts so long at least.
        fused_sums: whether products and their sums over ranks are one kernel (``gemm_allreduce_plugin``).
        chunked: whether prompts are cut to the tokens of a step. balance: see ``attention_dp``.
        graphs: batches with a captured graph, where stated. cache: its dtype.
    """

    tensor: int
    pipeline: int
    sequences: int
    tokens: int
    cache_share: float
    lasting_s: float = 600.0
    fused_sums: bool = False
    chunked: bool = True
    balance: AttentionDpOptions = field(default_factory=AttentionDpOptions)
    graphs: tuple[int, ...] = ()
    cache: str = "float8_e4m3fn"


@dataclass(frozen=True, slots=True)
class Published:
    """Settings of a round's benchmark on some cards."""

    round: str
    chips: tuple[str, ...]
    model: str
    scenarios: tuple[str, ...]
    settings: Settings
    stack: Stack = Stack.TRTLLM


def _balance(wait: int, timeout: int) -> AttentionDpOptions:
    return AttentionDpOptions(enable_balance=True, batching_wait_iters=wait, timeout_iters=timeout)


BLACKWELL = ("b200", "gb200", "b300", "gb300")
X86, ARM = ("b200", "b300"), ("gb200", "gb300")
H100, H200 = ("h100-sxm",), ("h200",)
BOTH, ALL = ("offline", "server"), ("offline", "server", "interactive")
OFFLINE, SERVER, INTERACTIVE = (("offline",), ("server",), ("interactive",))
LLAMA2, LLAMA405, LLAMA8, MIXTRAL = "llama2-70b", "llama3.1-405b", "llama3-8b", "mixtral-8x7b"
DEEPSEEK = "deepseek-v3-671b"
FEW, MANY = (128, 256, 384, 512), (1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512)
LONG_S = 2400.0
BY_PYTORCH = (LLAMA8, DEEPSEEK)
"""Benchmarks that v5.1 runs on TensorRT-LLM's PyTorch backend: those with captured graphs, which its harness refuses
to engines built ahead (``code/llmlib/config.py``). All others, and all of v4.1, are built."""
TABLE: tuple[Published, ...] = (
    Published(V51, BLACKWELL, LLAMA2, BOTH, Settings(1, 1, 2048, 3584, 0.95, LONG_S)),
    Published(V51, BLACKWELL, LLAMA2, INTERACTIVE, Settings(1, 1, 768, 768, 0.95)),
    Published(V51, BLACKWELL, LLAMA405, OFFLINE, Settings(2, 2, 128, 1536, 0.95, fused_sums=True)),
    Published(V51, BLACKWELL, LLAMA405, SERVER, Settings(4, 1, 256, 2048, 0.95, fused_sums=True)),
    Published(V51, BLACKWELL, LLAMA405, INTERACTIVE, Settings(4, 1, 256, 1536, 0.95, fused_sums=True)),
    Published(V51, BLACKWELL, LLAMA8, ALL, Settings(1, 1, 6000, 12_000, 0.9)),
    Published(
        V51, BLACKWELL, DEEPSEEK, OFFLINE,
        Settings(8, 1, 512, 4608, 0.9, chunked=False, balance=_balance(10, 500), graphs=FEW),
    ),
    Published(
        V51, X86, DEEPSEEK, ("server", "interactive"),
        Settings(8, 1, 512, 3456, 0.9, chunked=False, balance=_balance(3, 9), graphs=FEW),
    ),
    Published(
        V51, ARM, DEEPSEEK, ("server", "interactive"),
        Settings(8, 1, 512, 3456, 0.9, chunked=False, balance=_balance(3, 9), graphs=MANY),
    ),
    Published(V51, BLACKWELL, MIXTRAL, OFFLINE, Settings(1, 1, 6144, 14_336, 0.95, chunked=False)),
    Published(V51, BLACKWELL, MIXTRAL, SERVER, Settings(1, 1, 6144, 10_240, 0.9, chunked=False)),
    Published(V51, H200, LLAMA2, BOTH, Settings(1, 1, 2048, 1536, 0.9, LONG_S)),
    Published(V51, H200, LLAMA2, INTERACTIVE, Settings(1, 1, 512, 256, 0.9)),
    Published(V51, H200, LLAMA405, OFFLINE, Settings(4, 2, 512, 1536, 0.95)),
    Published(V51, H200, LLAMA405, SERVER, Settings(8, 1, 512, 2560, 0.9)),
    Published(V51, H200, LLAMA8, BOTH, Settings(1, 1, 2048, 1536, 0.9)),
    Published(V51, H200, MIXTRAL, OFFLINE, Settings(1, 1, 3072, 16_384, 0.9, LONG_S)),
    Published(V51, H200, MIXTRAL, SERVER, Settings(1, 1, 3072, 8192, 0.9)),
    Published(V51, H100, LLAMA8, OFFLINE, Settings(1, 1, 1024, 4096, 0.9), Stack.VLLM),
    Published(V51, H100, LLAMA8, SERVER, Settings(1, 1, 1024, 4096, 0.9, cache="bfloat16"), Stack.VLLM),
    Published(V41, H200, LLAMA2, OFFLINE, Settings(1, 1, 806, 4096, 0.9, LONG_S, chunked=False)),
    Published(V41, H200, LLAMA2, SERVER, Settings(1, 1, 896, 4096, 0.9, LONG_S, chunked=False)),
    Published(V41, H200, MIXTRAL, OFFLINE, Settings(1, 1, 3072, 16_384, 0.9, LONG_S, chunked=False)),
    Published(V41, H200, MIXTRAL, SERVER, Settings(1, 1, 1200, 8192, 0.9, LONG_S, chunked=False)),
    Published(V41, ("gh200",), LLAMA2, BOTH, Settings(1, 1, 806, 4096, 0.9, LONG_S, chunked=False)),
    Published(V41, ("gh200",), MIXTRAL, BOTH, Settings(1, 1, 3072, 16_384, 0.9, LONG_S, chunked=False)),
    Published(V41, H100, LLAMA2, OFFLINE, Settings(2, 1, 896, 4096, 0.9, LONG_S, chunked=False)),
    Published(V41, H100, LLAMA2, SERVER, Settings(2, 1, 1024, 4096, 0.9, LONG_S, chunked=False)),
    Published(V41, H100, MIXTRAL, OFFLINE, Settings(1, 1, 896, 8192, 0.9, LONG_S, chunked=False)),
    Published(V41, H100, MIXTRAL, SERVER, Settings(1, 1, 896, 16_384, 0.9, LONG_S, chunked=False)),
    Published(V41, ("h100-pcie",), LLAMA2, OFFLINE, Settings(2, 1, 896, 4096, 0.97, LONG_S, chunked=False)),
    Published(V41, ("h100-pcie",), LLAMA2, SERVER, Settings(2, 1, 896, 4096, 0.95, LONG_S, chunked=False)),
    Published(V41, ("h100-nvl",), LLAMA2, OFFLINE, Settings(2, 1, 1300, 4096, 0.9, LONG_S, chunked=False)),
    Published(V41, ("h100-nvl",), LLAMA2, SERVER, Settings(2, 1, 640, 4096, 0.9, LONG_S, chunked=False)),
)  # fmt: skip


def published(
    chip: str, model: str, scenario: str, stack: Stack = Stack.TRTLLM, source: str = ""
) -> Settings | None:
    """The settings of a benchmark on a card; None where none were published.

    Args:
        source: names the round.
    """
    found: Sequence[Published] = [
        one for one in TABLE
        if chip in one.chips and model == one.model and scenario in one.scenarios and stack is one.stack
    ]  # fmt: skip
    own = [one for one in found if one.round in source]
    return next((one.settings for one in (*own, *found)), None)

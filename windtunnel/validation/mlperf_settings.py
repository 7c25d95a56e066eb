"""What MLPerf's submissions with NVIDIA's code ran with, where their logs do not say.

Submitters publish their settings beside their logs, and take NVIDIA's: ``closed/NVIDIA/configs`` of
mlcommons/inference_results_v5.1 (965182b) for Blackwell, of v4.1 for H100 (where v5.1 has none), and those that
ASUSTeK, Cisco and Dell share in v5.1 for H200. All let TensorRT-LLM admit whatever its cache holds at the moment
(``max_util``) and cut prompts into chunks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """One replica's: ranks that share every product, stages, most sequences and tokens of a step, the cache's share of
    free memory, how long a load offline lasts at least, and whether products and their sums over ranks are one kernel
    (``gemm_allreduce_plugin``).
    """

    tensor: int
    pipeline: int
    sequences: int
    tokens: int
    cache_share: float
    lasting_s: float = 600.0
    fused_sums: bool = False


BLACKWELL = ("b200", "gb200", "b300", "gb300")
_LONG_S = 2400.0
TABLE: tuple[tuple[tuple[str, ...], str, tuple[str, ...], Settings], ...] = (
    (BLACKWELL, "llama2-70b", ("offline", "server"), Settings(1, 1, 2048, 3584, 0.95, _LONG_S)),
    (BLACKWELL, "llama2-70b", ("interactive",), Settings(1, 1, 768, 768, 0.95)),
    (BLACKWELL, "llama3.1-405b", ("offline",), Settings(2, 2, 128, 1536, 0.95, fused_sums=True)),
    (BLACKWELL, "llama3.1-405b", ("server",), Settings(4, 1, 256, 2048, 0.95, fused_sums=True)),
    (BLACKWELL, "llama3.1-405b", ("interactive",), Settings(4, 1, 256, 1536, 0.95, fused_sums=True)),
    (BLACKWELL, "llama3-8b", ("offline", "server", "interactive"), Settings(1, 1, 6000, 12_000, 0.9)),
    (BLACKWELL, "deepseek-v3-671b", ("offline",), Settings(8, 1, 512, 4608, 0.9)),
    (BLACKWELL, "deepseek-v3-671b", ("server", "interactive"), Settings(8, 1, 512, 3456, 0.9)),
    (BLACKWELL, "mixtral-8x7b", ("offline",), Settings(1, 1, 6144, 14_336, 0.95)),
    (BLACKWELL, "mixtral-8x7b", ("server",), Settings(1, 1, 6144, 10_240, 0.9)),
    (("h200",), "llama2-70b", ("offline", "server"), Settings(1, 1, 2048, 1536, 0.9, _LONG_S)),
    (("h200",), "llama2-70b", ("interactive",), Settings(1, 1, 512, 256, 0.9)),
    (("h200",), "llama3.1-405b", ("offline",), Settings(4, 2, 512, 1536, 0.95)),
    (("h200",), "llama3.1-405b", ("server",), Settings(8, 1, 512, 2560, 0.9)),
    (("h200",), "llama3-8b", ("offline", "server"), Settings(1, 1, 2048, 1536, 0.9)),
    (("h200",), "mixtral-8x7b", ("offline",), Settings(1, 1, 3072, 16_384, 0.9, _LONG_S)),
    (("h200",), "mixtral-8x7b", ("server",), Settings(1, 1, 1200, 8192, 0.9)),
    (("gh200",), "llama2-70b", ("offline", "server"), Settings(1, 1, 806, 4096, 0.9, _LONG_S)),
    (("gh200",), "mixtral-8x7b", ("offline", "server"), Settings(1, 1, 3072, 16_384, 0.9, _LONG_S)),
    (("h100-sxm",), "llama2-70b", ("offline",), Settings(2, 1, 896, 4096, 0.9, _LONG_S)),
    (("h100-sxm",), "llama2-70b", ("server",), Settings(2, 1, 1024, 4096, 0.9, _LONG_S)),
    (("h100-nvl",), "llama2-70b", ("offline",), Settings(2, 1, 1300, 4096, 0.9, _LONG_S)),
    (("h100-nvl",), "llama2-70b", ("server",), Settings(2, 1, 640, 4096, 0.9, _LONG_S)),
    (("h100-sxm",), "mixtral-8x7b", ("offline", "server"), Settings(1, 1, 896, 8192, 0.9, _LONG_S)),
)  # fmt: skip


def published(chip: str, model: str, scenario: str) -> Settings | None:
    """The settings of a benchmark on a card; None where none were published."""
    return next(
        (
            settings for chips, name, scenarios, settings in TABLE
            if name == model and scenario in scenarios and chip in chips
        ),
        None,
    )  # fmt: skip

"""How long a step of vLLM takes on the virtual cards: what its scheduler decided, priced by our step times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from windtunnel.endpoint.vllm.folder import VISION
from windtunnel.endpoint.vllm.settings import Settings
from windtunnel.endpoint.vllm.stages import Stages, staged
from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.speculation import Speculation
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_config import model_from_config

CACHES = {"auto": "bfloat16", "bfloat16": "bfloat16", "float16": "float16"}


def stages_of(config: Any, cluster: Cluster, settings: Settings, bounds: Sequence[int]) -> Stages:
    """The pipeline that vLLM's ``config`` describes, on as many cards as it spreads over; often of one stage.

    Raises:
        WindtunnelError: E209, E303, E304, E501, E651, E653: as ``deploy`` does.
    """
    parallel, scheduler, cache = config.parallel_config, config.scheduler_config, config.cache_config
    ranks = parallel.data_parallel_size if config.model_config.is_moe else 1
    cards = parallel.tensor_parallel_size * ranks * (len(bounds) - 1)
    drafted = config.speculative_config.num_speculative_tokens if config.speculative_config else 0
    options = DeploymentOptions(
        tensor_parallel_size=parallel.tensor_parallel_size,
        data_parallel_size=ranks,
        enable_expert_parallel=parallel.enable_expert_parallel,
        precision=Precision(_precision(config, settings)),
        kv_cache_dtype=CACHES.get(cache.cache_dtype, "float8_e4m3fn"),
        gpu_memory_utilization=cache.gpu_memory_utilization,
        max_num_seqs=scheduler.max_num_seqs,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        enforce_eager=config.model_config.enforce_eager,
        enable_dbo=settings.overlap,
        expert_imbalance=settings.imbalance,
        speculation=Speculation(tokens=drafted, acceptance=settings.acceptance),
    )
    model = _model(config.model_config.model)
    return staged(model, replace(cluster, cards=cards), options, bounds)


def _model(folder: str) -> ModelSpec:
    content = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if VISION in content:
        content["vision_config"] = content[VISION]
    return model_from_config(content, Path(folder).name)


def _precision(config: Any, settings: Settings) -> str:
    """As asked for; else block FP8 where the checkpoint says so, else the type of the weights."""
    if settings.precision != "auto":
        return settings.precision
    quantised = getattr(config.model_config.hf_config, "quantization_config", None) or {}
    if quantised.get("quant_method") == "fp8":
        return "fp8-block" if quantised.get("weight_block_size") else "fp8"
    return "fp16" if str(config.model_config.dtype) == "torch.float16" else "bf16"


class Pace:
    """Seconds of steps of one engine, at ``speed`` times the cards' own pace."""

    def __init__(self, deployment: Deployment, speed: float) -> None:
        self._step = deployment.step
        self.speed = speed
        self._tower = deployment.step.vision
        # a step of ours is told per token that comes out; vLLM counts those itself
        self._yielded = deployment.step.speculation.yielded

    def seconds(self, decodes: int, contexts: int, chunks: Sequence[tuple[int, int]]) -> float:
        """A step of ``decodes`` sequences with ``contexts`` tokens in all and chunks of (new, context)."""
        if chunks:
            return self._step.mixed_s(decodes, contexts, chunks) / self.speed
        if not decodes:
            return 0.0
        return self._step.decode_s(decodes, contexts) * self._yielded / self.speed

    def tower_s(self, pictures: Sequence[tuple[int, float]]) -> float:
        """Pictures of so many tokens, of which so large a part is not in the cache."""
        tower = self._tower
        if tower is None:
            return 0.0
        return sum(tower.seconds(tokens * tower.merge) * new for tokens, new in pictures) / self.speed

"""Memory of a serving engine on the fullest card: weights, cache of the sequences, one step at work."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.fit.parts import MemoryParts
from windtunnel.recipes.fit.sharding import ends_parameters, layer_parameters, stages
from windtunnel.specs.model import Layer, ModelSpec
from windtunnel.specs.model_ffn import Dense, Moe
from windtunnel.specs.model_mixers import Attention, Mixer

WEIGHT_BYTES = {
    "bf16": 2.0,
    "fp16": 2.0,
    "fp32": 4.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5625,
    "int4": 0.53125,
}
"""Bytes a weight of the layers. Scales of FP8 and INT8 blocks are below 0.1 %; NVFP4 has an FP8 scale for
16 weights, INT4 a 16-bit scale and zero for 128."""

CACHE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "fp8": 1, "int8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How a model is served.

    Attributes:
        tensor, pipeline, expert: degrees within a replica of the layers; data: attention replicas.
        batch: sequences of one attention replica. context: tokens of each in the cache.
        prefill_tokens: most new tokens of one step.
    """

    batch: int
    context: int
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1
    precision: str = "bf16"
    cache_precision: str = "bf16"
    prefill_tokens: int = 8192

    def __post_init__(self) -> None:
        if min(self.batch, self.context, self.tensor, self.pipeline, self.expert, self.data) < 1:
            raise self._bad("every degree, batch and context is at least 1")
        if (self.tensor * self.data) % self.expert:
            raise self._bad(f"expert {self.expert} does not divide tensor x data = {self.tensor * self.data}")

    def _bad(self, why: str) -> WindtunnelError:
        return WindtunnelError(
            "E207",
            f"the deployment does not multiply up: {why}",
            hint="choose degrees with tensor x pipeline x data = cards",
            values={
                "tensor": self.tensor,
                "pipeline": self.pipeline,
                "expert": self.expert,
                "data": self.data,
            },
        )

    @property
    def cards(self) -> int:
        """Cards of one replica."""
        return self.tensor * self.pipeline * self.data


def inference_memory(model: ModelSpec, deployment: Deployment) -> MemoryParts:
    """Bytes by part on the fullest card; library workspace and communication are the caller's."""
    split = stages(model, deployment.pipeline)
    found = [_stage_memory(model, deployment, number, layers) for number, layers in enumerate(split)]
    return max(found, key=lambda parts: parts.allocated)


def cache_bytes(mixer: Mixer, deployment: Deployment) -> int:
    """Cache of one layer for all sequences on one tensor rank; latent caches are whole on every rank."""
    width = CACHE_BYTES[deployment.cache_precision]
    elements = mixer.cache_elements(deployment.context)
    if isinstance(mixer, Attention):
        elements = elements // mixer.kv_heads * -(-mixer.kv_heads // deployment.tensor)
    return deployment.batch * elements * width


def state_bytes(mixer: Mixer, deployment: Deployment) -> int:
    """Recurrent state of one layer for all sequences: FP32, and the convolution's inputs in 16 bits."""
    state = 4 * mixer.state_elements + 2 * mixer.convolution_elements
    return deployment.batch * -(-state // deployment.tensor)


def _stage_memory(model: ModelSpec, deployment: Deployment, stage: int, layers: range) -> MemoryParts:
    width = WEIGHT_BYTES[deployment.precision]
    chosen = [model.layers[index] for index in layers]
    expert, split = (deployment.expert, 1) if deployment.expert > 1 else (1, deployment.tensor)
    held = [layer_parameters(model, layer, deployment.tensor, expert, split) for layer in chosen]
    ends = ends_parameters(model, stage, deployment.pipeline, deployment.tensor)
    mixers = [layer.mixer for layer in chosen if layer.mixer]
    return MemoryParts(
        weights=int(sum(item.total for item in held) * width + ends * max(2.0, min(width, 4.0))),
        working=int(_step_bytes(model, deployment, chosen, last=stage == deployment.pipeline - 1)),
        cache=sum(cache_bytes(mixer, deployment) for mixer in mixers),
        state=sum(state_bytes(mixer, deployment) for mixer in mixers),
    )


def _step_bytes(model: ModelSpec, deployment: Deployment, layers: list[Layer], *, last: bool) -> float:
    """Activations of the widest layer in a step, and FP32 logits of one token a sequence."""
    tokens = min(deployment.prefill_tokens, deployment.batch * deployment.context)
    widest = max((_widest(model, layer, deployment) for layer in layers), default=0.0)
    logits = 6.0 * deployment.batch * model.vocabulary / deployment.tensor if last else 0.0
    return tokens * (6.0 * model.hidden * model.streams + widest) + logits


def _widest(model: ModelSpec, layer: Layer, deployment: Deployment) -> float:
    """Bytes a token inside a layer: products and activation of the feed-forward, in 16 bits."""
    ffn = layer.ffn
    if isinstance(ffn, Dense):
        return (6 if ffn.gated else 4) * ffn.width / deployment.tensor
    if isinstance(ffn, Moe):
        split = 1 if deployment.expert > 1 else deployment.tensor
        return ffn.top_k * ((6 if ffn.gated else 4) * ffn.width / split + 2 * (ffn.latent or model.hidden))
    return 4.0 * model.hidden

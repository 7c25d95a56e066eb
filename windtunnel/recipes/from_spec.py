"""From a model's published configuration to what recipes build from."""

from __future__ import annotations

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.architecture import (
    Architecture,
    DenseFfn,
    Ffn,
    GatedDelta,
    GroupedQuery,
    Latent,
    LayerShape,
    Mixer,
    MoeFfn,
    VisionTower,
)
from windtunnel.specs import model_mixers as mixers
from windtunnel.specs.model import Layer, ModelSpec
from windtunnel.specs.model import VisionTower as VisionSpec
from windtunnel.specs.model_ffn import Dense, Moe


def architecture_of(model: ModelSpec, patches: int = 0) -> Architecture:
    """The model for recipes; ``patches``: image patches of one sequence for models that see.

    Raises E209 for a mixer that recipes cannot build.
    """
    return Architecture(
        hidden=model.hidden,
        vocabulary=model.vocabulary,
        layers=tuple(_layer(layer, model) for layer in model.layers),
        tied=model.tied,
        learned_positions=model.positions,
        vision=_vision(model.vision, patches) if model.vision and patches else None,
    )


def _layer(layer: Layer, model: ModelSpec) -> LayerShape:
    return LayerShape(
        mixer=None if layer.mixer is None else _mixer(layer.mixer, model),
        ffn=None if layer.ffn is None else _ffn(layer.ffn),
        norm=model.norm,
    )


def _mixer(mixer: mixers.Mixer, model: ModelSpec) -> Mixer:
    if isinstance(mixer, mixers.Attention):
        return GroupedQuery(
            heads=mixer.heads,
            kv_heads=mixer.kv_heads,
            head_dim=mixer.head_dim,
            bias=mixer.bias,
            output_bias=mixer.output_bias,
            query_norm=None if mixer.query_norm is mixers.QueryNorm.NONE else model.norm,
            gated=mixer.gated,
            window=mixer.window,
            chunk=mixer.chunk,
            rotary=model.positions == 0,
            rotary_dims=mixer.rotary_dims,
        )
    if isinstance(mixer, mixers.Latent):
        # the indexer of sparse attention is left out: it is small, and training runs it dense
        return Latent(
            heads=mixer.heads,
            query_rank=mixer.query_rank,
            kv_rank=mixer.kv_rank,
            nope_dim=mixer.nope_dim,
            rope_dim=mixer.rope_dim,
            value_dim=mixer.value_dim,
            norm=model.norm,
        )
    if isinstance(mixer, mixers.GatedDelta):
        return GatedDelta(
            key_heads=mixer.key_heads,
            value_heads=mixer.value_heads,
            key_dim=mixer.key_dim,
            value_dim=mixer.value_dim,
            convolution=mixer.convolution,
        )
    if isinstance(mixer, mixers.Mamba):
        # Mamba-2's chunked scan is the gated delta rule without its correction term: the same products
        return GatedDelta(
            key_heads=mixer.groups,
            value_heads=mixer.heads,
            key_dim=mixer.state,
            value_dim=mixer.head_dim,
            convolution=mixer.convolution,
        )
    raise WindtunnelError(
        "E209",
        f"recipes cannot build a {type(mixer).__name__} mixer ({model.name})",
        hint="record the model instead: windtunnel run --on CHIP your_script.py",
        values={"model": model.name},
    )


def _ffn(ffn: Dense | Moe) -> Ffn:
    if isinstance(ffn, Dense):
        return DenseFfn(width=ffn.width, gated=ffn.gated, bias=ffn.bias)
    return MoeFfn(
        experts=ffn.experts,
        top_k=ffn.top_k,
        width=ffn.width,
        shared_width=ffn.shared_width,
        gated=ffn.gated,
        latent=ffn.latent,
        shared_gate=ffn.shared_gate,
        router_fp32=ffn.router_fp32,
        weights_fp32=ffn.weights_fp32,
        groups=ffn.groups,
        groups_chosen=ffn.groups_chosen,
    )


def _vision(tower: VisionSpec, patches: int) -> VisionTower:
    block = LayerShape(
        mixer=GroupedQuery(
            heads=tower.heads,
            kv_heads=tower.heads,
            head_dim=tower.hidden // tower.heads,
            bias=True,
            output_bias=True,
            causal=False,
        ),
        ffn=DenseFfn(width=tower.ffn, gated=tower.gated, bias=True),
        norm=tower.norm,
    )
    return VisionTower(
        layers=(block,) * tower.layers,
        hidden=tower.hidden,
        patch_elements=tower.patch_elements,
        merge=tower.merge,
        output=tower.output,
        patches=patches,
        positions=tower.positions,
        deep_mergers=tower.deep_mergers,
    )

"""From a model of the catalogue to the shape that recipes build steps from."""

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
)
from windtunnel.specs import model_ffn, model_mixers
from windtunnel.specs.model import Layer, ModelSpec, Norm


def architecture_of(model: ModelSpec) -> Architecture:
    """The decoder of ``model``, without its vision tower.

    Raises:
        WindtunnelError: E209, a layer that no recipe knows (Mamba, compressed or sparse attention, a layer
            without a mixer or a feed-forward).
    """
    return Architecture(
        hidden=model.hidden,
        vocabulary=model.vocabulary,
        layers=tuple(_layer(model, layer) for layer in model.layers),
        tied=model.tied,
        learned_positions=model.positions,
    )


def _layer(model: ModelSpec, layer: Layer) -> LayerShape:
    return LayerShape(mixer=_mixer(model, layer), ffn=_ffn(model, layer), layer_norm=model.norm is Norm.LAYER)


def _mixer(model: ModelSpec, layer: Layer) -> Mixer:
    mixer = layer.mixer
    if isinstance(mixer, model_mixers.Attention):
        return GroupedQuery(
            heads=mixer.heads,
            kv_heads=mixer.kv_heads,
            head_dim=mixer.head_dim,
            bias=mixer.bias,
            query_norm=mixer.query_norm is not model_mixers.QueryNorm.NONE,
            gated=mixer.gated,
            window=mixer.window,
        )
    if isinstance(mixer, model_mixers.Latent) and mixer.indexer is None:
        return Latent(
            heads=mixer.heads,
            query_rank=mixer.query_rank,
            kv_rank=mixer.kv_rank,
            nope_dim=mixer.nope_dim,
            rope_dim=mixer.rope_dim,
            value_dim=mixer.value_dim,
        )
    if isinstance(mixer, model_mixers.GatedDelta):
        return GatedDelta(
            key_heads=mixer.key_heads,
            value_heads=mixer.value_heads,
            key_dim=mixer.key_dim,
            value_dim=mixer.value_dim,
            convolution=mixer.convolution,
        )
    raise _unknown(model, "no mixer" if mixer is None else f"{type(mixer).__name__} mixing")


def _ffn(model: ModelSpec, layer: Layer) -> Ffn:
    ffn = layer.ffn
    if isinstance(ffn, model_ffn.Dense):
        return DenseFfn(width=ffn.width, gated=ffn.gated, bias=ffn.bias)
    if isinstance(ffn, model_ffn.Moe) and not ffn.latent:
        return MoeFfn(
            experts=ffn.experts,
            top_k=ffn.top_k,
            width=ffn.width,
            shared_width=ffn.shared_width,
            gated=ffn.gated,
        )
    raise _unknown(model, "no feed-forward" if ffn is None else "experts behind a projection")


def _unknown(model: ModelSpec, what: str) -> WindtunnelError:
    return WindtunnelError(
        "E209",
        f"`{model.name}` has layers with {what}, which no recipe builds",
        hint="record the model's own code instead: windtunnel run your_script.py",
        values={"model": model.name, "family": model.family},
    )

"""Which tensor-parallel sizes a model can be cut into: engines refuse the others.

As vLLM (``ModelConfig.verify_with_parallel_config``, ``QKVParallelLinear``) and SGLang do: every rank has the same
number of query heads; of key-value heads either the same number, or as many ranks share each; of a recurrent mixer's
heads the same number; and the same share of every feed-forward width that is not spread over expert ranks.
"""

from __future__ import annotations

from windtunnel.specs.model import Layer, ModelSpec
from windtunnel.specs.model_ffn import Moe
from windtunnel.specs.model_mixers import Attention, GatedDelta, Mixer

MOST = 64
"""Tensor-parallel sizes that are looked at for a hint."""


def divides(model: ModelSpec, ways: int, *, experts_apart: bool) -> bool:
    """Whether ``ways`` ranks can share every layer; ``experts_apart``: experts have ranks of their own."""
    return all(_shares(layer, ways, experts_apart) for layer in set(model.layers))


def sizes(model: ModelSpec, *, experts_apart: bool) -> list[int]:
    """The sizes that can."""
    return [ways for ways in range(1, MOST + 1) if divides(model, ways, experts_apart=experts_apart)]


def heads_in_words(model: ModelSpec) -> str:
    """What has to be divided."""
    return ", ".join(dict.fromkeys(_words(layer.mixer) for layer in model.layers if layer.mixer is not None))


def _words(mixer: Mixer) -> str:
    if isinstance(mixer, GatedDelta):
        return f"{mixer.key_heads} key and {mixer.value_heads} value heads of states"
    if isinstance(mixer, Attention):
        return f"{mixer.heads} heads, {mixer.kv_heads} of keys and values"
    return f"{mixer.heads} heads"


def _shares(layer: Layer, ways: int, experts_apart: bool) -> bool:
    mixer, ffn = layer.mixer, layer.ffn
    parts = []
    if isinstance(mixer, GatedDelta):
        parts += [mixer.key_heads, mixer.value_heads]
    elif mixer is not None:
        parts.append(mixer.heads)
    if isinstance(mixer, Attention) and mixer.kv_heads % ways and ways % mixer.kv_heads:
        return False
    if isinstance(ffn, Moe):
        parts += [ffn.shared_width] if experts_apart else [ffn.shared_width, ffn.width]
    elif ffn is not None:
        parts.append(ffn.width)
    return not any(part % ways for part in parts)

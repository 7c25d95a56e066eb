"""The layer that drafts tokens (MTP): what it is made of beyond a layer of the model.

Embedding and output head are the model's own (vLLM 0.33 and SGLang 0.5.23 share them). Two norms and a product of
twice the hidden size join the embedding of the last token to what the model made of those before it, and a norm is in
front of the head (arXiv 2412.19437, section 2.2). The layer between is a decoder layer that attends to everything:
Qwen3.5's ``full_attention`` and experts, Nemotron's ``*E``, else as the last layer. Models without such layers that
are asked to draft are given one.
"""

from __future__ import annotations

from windtunnel.specs.model import Layer, ModelSpec

_NORMS = 3


def draft_layers(model: ModelSpec, drafts: int) -> tuple[Layer, ...]:
    """The decoder layers within, none without ``drafts``; each has a cache of its own for every token."""
    if not drafts:
        return ()
    keeping = [layer.mixer for layer in model.layers if layer.mixer and layer.mixer.cache_elements(1)]
    forward = [layer.ffn for layer in model.layers if layer.ffn is not None]
    one = Layer(mixer=keeping[-1] if keeping else None, ffn=forward[-1] if forward else None)
    return (one,) * max(1, model.prediction_layers)


def joining_parameters(model: ModelSpec) -> int:
    """Learned numbers of one drafting layer around the decoder layer."""
    return 2 * model.hidden**2 + _NORMS * model.norm_parameters


def draft_parameters(model: ModelSpec) -> int:
    """Learned numbers of all drafting layers, without the shared embedding and head."""
    return sum(model.layer_parameters(layer) + joining_parameters(model) for layer in draft_layers(model, 1))

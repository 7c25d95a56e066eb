"""Architectures of published models, by their configuration files."""

from __future__ import annotations

from windtunnel.recipes.architecture import (
    Architecture,
    DenseFfn,
    GatedDelta,
    GroupedQuery,
    Latent,
    LayerShape,
    MoeFfn,
    VisionTower,
)
from windtunnel.specs.model import Norm


def llama(
    layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocabulary: int = 128256
) -> Architecture:
    shape = LayerShape(
        mixer=GroupedQuery(heads=heads, kv_heads=kv_heads, head_dim=hidden // heads), ffn=DenseFfn(width=ffn)
    )
    return Architecture(hidden=hidden, vocabulary=vocabulary, layers=(shape,) * layers)


LLAMA_8B = llama(32, 4096, 32, 8, 14336)
LLAMA_70B = llama(80, 8192, 64, 8, 28672)
SMALL = llama(4, 1024, 8, 8, 4096, vocabulary=32000)

_MLA = Latent(heads=128, query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
_EXPERTS = MoeFfn(experts=256, top_k=8, width=2048, shared_width=2048, groups=8, groups_chosen=4)
DEEPSEEK_V3 = Architecture(
    hidden=7168,
    vocabulary=129280,
    layers=(LayerShape(mixer=_MLA, ffn=DenseFfn(width=18432)),) * 3
    + (LayerShape(mixer=_MLA, ffn=_EXPERTS),) * 58,
)

_GDN = GatedDelta(key_heads=16, value_heads=64, key_dim=128, value_dim=128)
_GATED = GroupedQuery(heads=32, kv_heads=2, head_dim=256, gated=True, query_norm=Norm.CENTRED)
_MOE = MoeFfn(experts=512, top_k=10, width=1024, shared_width=1024)
QWEN35_397B = Architecture(
    hidden=4096,
    vocabulary=248320,
    layers=(
        *(LayerShape(mixer=_GDN, ffn=_MOE),) * 3,
        LayerShape(mixer=_GATED, ffn=_MOE),
    )
    * 15,
)

_VIT = LayerShape(
    mixer=GroupedQuery(heads=16, kv_heads=16, head_dim=72, bias=True, causal=False),
    ffn=DenseFfn(width=4304, gated=False, bias=True),
    norm=Norm.LAYER,
)
VISION = VisionTower(layers=(_VIT,) * 2, hidden=1152, patch_elements=1536, merge=4, output=1024, patches=1024)

"""What a language model is made of: facts of its published configuration, layer by layer.

Plain data with the two things that follow from it exactly: how many parameters each part has, and how many
elements of cache one sequence needs. ``model_config.py`` reads it from a configuration,
``model_catalogue.py`` finds it by name. How it is run is not said here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from windtunnel.specs.model_ffn import Dense, Moe
from windtunnel.specs.model_mixers import Mixer


class Norm(StrEnum):
    """What a normalisation learns."""

    RMS = "rms"  # a weight (also LayerNorm without bias)
    CENTRED = "centred"  # RMS whose weight is kept less 1, applied in FP32
    LAYER = "layer"  # a weight and a bias


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One decoder layer. Hybrids (Nemotron-H) have layers with only one of the two."""

    mixer: Mixer | None
    ffn: Dense | Moe | None

    @property
    def norms(self) -> int:
        """Normalisations on the residual stream."""
        return (self.mixer is not None) + (self.ffn is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionTower:
    """A vision transformer whose patches become tokens of the language model.

    Attributes:
        patch_elements: numbers in one patch: channels × frames × height × width.
        merge: patches merged into one token.
        output: hidden size of the language model.
        positions: learned positions, 0 for rotary ones.
        deep_mergers: further mergers whose output enters deeper layers (DeepStack).
        gated, bias: of the feed-forward; norm: of the blocks.
    """

    layers: int
    hidden: int
    heads: int
    ffn: int
    patch_elements: int
    merge: int
    output: int
    positions: int = 0
    deep_mergers: int = 0
    gated: bool = False
    patch_bias: bool = True
    norm: Norm = Norm.LAYER

    @property
    def parameters(self) -> int:
        """Learned numbers of blocks, patch embedding, positions and mergers."""
        norm = 2 * self.hidden if self.norm is Norm.LAYER else self.hidden
        attention = 4 * self.hidden**2 + 4 * self.hidden
        ffn = (3 if self.gated else 2) * self.hidden * self.ffn + self.hidden
        ffn += (2 if self.gated else 1) * self.ffn
        patches = self.patch_elements * self.hidden + (self.hidden if self.patch_bias else 0)
        merged = self.merge * self.hidden
        merger = merged * merged + merged + merged * self.output + self.output
        deep = self.deep_mergers * (merger + (2 * merged if self.norm is Norm.LAYER else merged))
        blocks = self.layers * (attention + ffn + 2 * norm)
        return blocks + patches + self.positions * self.hidden + merger + norm + deep


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model.

    Attributes:
        family: the configuration's model type.
        layers: in order from the embedding on.
        tied: whether the output head is the embedding.
        positions: learned absolute positions, 0 for rotary or none.
        head_bias: whether the output head has a bias.
        streams: residual streams (hyper-connections); 1 in an ordinary transformer.
        prediction_layers: extra layers that predict further tokens; not counted as parameters of the model.
        context: tokens of a sequence that it was made for; 0 where its configuration does not say.
        source, date: where the configuration stands.
    """

    name: str
    family: str
    hidden: int
    vocabulary: int
    layers: tuple[Layer, ...]
    tied: bool = False
    norm: Norm = Norm.RMS
    norms_per_layer: int | None = None
    positions: int = 0
    head_bias: bool = False
    streams: int = 1
    prediction_layers: int = 0
    vision: VisionTower | None = None
    context: int = 0
    title: str = ""
    aliases: tuple[str, ...] = ()
    source: str = ""
    date: str = ""

    @property
    def norm_parameters(self) -> int:
        """Learned numbers of one normalisation of the residual stream."""
        return self.hidden * (2 if self.norm is Norm.LAYER else 1)

    @property
    def embedding_parameters(self) -> int:
        """Token embedding and learned positions."""
        return (self.vocabulary + self.positions) * self.hidden

    @property
    def head_parameters(self) -> int:
        """The output head where it is not the embedding, with its bias; and what joins residual streams."""
        head = 0 if self.tied else self.vocabulary * self.hidden
        joining = self.streams * self.streams * self.hidden + self.streams + 1 if self.streams > 1 else 0
        return head + (self.vocabulary if self.head_bias else 0) + joining

    def layer_norm_parameters(self, layer: Layer) -> int:
        """Normalisations (and stream mixing) of one layer."""
        norms = layer.norms if self.norms_per_layer is None else self.norms_per_layer
        width = 2 * self.streams + self.streams**2
        mixing = layer.norms * (width * self.streams * self.hidden + width + 3) if self.streams > 1 else 0
        return norms * self.norm_parameters + mixing

    @property
    def parameters(self) -> int:
        """All learned numbers, vision tower included, prediction layers not."""
        return self.text_parameters + (self.vision.parameters if self.vision else 0)

    @property
    def text_parameters(self) -> int:
        """Learned numbers of the language model."""
        layers = sum(self.layer_parameters(layer) for layer in self.layers)
        return self.embedding_parameters + self.head_parameters + self.norm_parameters + layers

    @property
    def active_parameters(self) -> int:
        """Parameters that one token meets: its experts only, and no embedding look-up."""
        idle = sum(
            layer.ffn.idle_parameters(self.hidden) for layer in self.layers if isinstance(layer.ffn, Moe)
        )
        return self.text_parameters - idle - (0 if self.tied else self.embedding_parameters)

    @property
    def expert_parameters(self) -> int:
        """Parameters of routed experts."""
        ffns = [layer.ffn for layer in self.layers if isinstance(layer.ffn, Moe)]
        return sum(ffn.routed_parameters(self.hidden) for ffn in ffns)

    def layer_parameters(self, layer: Layer) -> int:
        """Learned numbers of one layer."""
        mixer = layer.mixer.parameters(self.hidden) if layer.mixer else 0
        ffn = layer.ffn.parameters(self.hidden) if layer.ffn else 0
        return mixer + ffn + self.layer_norm_parameters(layer)

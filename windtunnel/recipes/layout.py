"""How a training job is spread over cards: degrees of parallelism, batches, precision, what is kept.

Ranks are numbered as Megatron-LM numbers them: tensor parallel fastest, then context, then data, then
pipeline. Experts are spread over consecutive ranks of one pipeline stage (expert tensor parallel 1 unless
said). FSDP is data parallel with sharded parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from windtunnel.errors import WindtunnelError


class Precision(StrEnum):
    """What the matrix products of the layers run in; everything else is BF16 or FP32."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"
    FP8 = "fp8"  # one scale per tensor (delayed or current)
    FP8_ROW = "fp8-row"  # one scale for each row of both operands (TorchAO's row-wise recipe)
    FP8_BLOCK = "fp8-block"  # 1x128 and 128x128 scales, DeepSeek's recipe
    MXFP8 = "mxfp8"  # 1x32 scales
    NVFP4 = "nvfp4"

    @property
    def is_fp8(self) -> bool:
        """Whether products take 8-bit (or narrower) operands and need casts around them."""
        return self in (
            Precision.FP8, Precision.FP8_ROW, Precision.FP8_BLOCK, Precision.MXFP8, Precision.NVFP4,
        )  # fmt: skip

    @property
    def activation(self) -> str:
        """dtype of activations and parameters, by PyTorch's name."""
        return {Precision.FP16: "float16", Precision.FP32: "float32"}.get(self, "bfloat16")


class Recompute(StrEnum):
    """What backward computes again."""

    NONE = "none"
    SELECTIVE = "selective"  # the attention core (Megatron-LM's selective)
    SELECTIVE_OPS = "selective-ops"  # all but every second matrix product and attention (TorchTitan's per-op)
    SELECTIVE_PRODUCTS = "selective-products"  # the same, attention computed again as well
    FULL = "full"  # whole layers


class Sharding(StrEnum):
    """What data-parallel ranks share out."""

    DDP = "ddp"  # nothing
    ZERO1 = "zero1"  # optimizer state: Megatron's distributed optimizer
    FSDP = "fsdp"  # parameters, gradients and optimizer state


class HostLoad(StrEnum):
    """How busy the host is for each operation that a recipe writes down."""

    COMPILED = "compiled"  # torch.compile: as many operations as are written here, few of them in Python
    FUSED = "fused"  # fused layers (Transformer Engine): Python modules around each
    EAGER = "eager"  # eager PyTorch of today: pointwise chains and views besides
    EAGER_2021 = "eager-2021"  # Megatron-LM and DeepSpeed before fused layers


class EagerCode(StrEnum):
    """Whose eager code the layers are, where they are not fused kernels."""

    TRANSFORMERS = "transformers"  # RMSNorm in pieces, rotary embedding by halves
    TORCHTITAN = (
        "torchtitan"  # PyTorch's RMSNorm, one kernel on CUDA since 2.8; rotary embedding in complex numbers
    )
    TORCHTITAN_2024 = "torchtitan-2024"  # before: RMSNorm in pieces, fused attention
    MEGATRON = "megatron"  # Megatron-core's own modules, without Transformer Engine or Apex

    @property
    def fuses_norm(self) -> bool:
        """Whether RMSNorm is one kernel."""
        return self is EagerCode.TORCHTITAN

    @property
    def turns_halves(self) -> bool:
        """Whether the rotary embedding joins two halves instead of multiplying complex numbers."""
        return self is EagerCode.TRANSFORMERS


class Dispatcher(StrEnum):
    """How tokens travel between the ranks of their experts."""

    ALL_TO_ALL = (
        "all-to-all"  # a copy for every expert chosen, by the library's all-to-all; sorted on both sides
    )
    DEEPEP = "deepep"  # one copy for every rank or node, written by multiprocessors
    HYBRIDEP = "hybridep"  # the same, moved by the copy units


class GraphScope(StrEnum):
    """What of a step is launched as captured graphs; the values are Megatron-Core's ``cuda_graph_scope``."""

    ATTENTION = "attn"
    FEED_FORWARD = "mlp"  # dense ones
    ROUTER = "moe_router"
    EXPERTS = "moe"  # whole mixtures of experts, whose tokens are dropped and padded to a capacity
    STEP = "full_iteration"


LAYERS = frozenset({GraphScope.ATTENTION, GraphScope.FEED_FORWARD, GraphScope.ROUTER})
"""Every part of a layer that can be captured one layer at a time, whatever tokens experts get."""


class LossKernel(StrEnum):
    """How the cross entropy over the vocabulary is computed."""

    FUSED = (
        "fused"  # one kernel each way (Transformer Engine, Liger), or PyTorch's own where layers are eager
    )
    COMPILED = "compiled"  # Megatron-Core's native fusion: a few compiled passes in FP32
    IN_PIECES = "in-pieces"  # Megatron-LM's vocabulary-parallel loss, one operation after another in FP32


class AttentionKernel(StrEnum):
    """Generations of attention kernels."""

    FLASH = "flash"  # what the chip's libraries offer today
    FLASH_1 = "flash-1"  # FlashAttention of 2022 and its Triton form: FLASH_1_FACTOR of the time
    UNFUSED = "unfused"  # products with a softmax between, the score matrix in memory


FLASH_1_FACTOR = 2.0
"""FlashAttention-2 is about twice as fast as the first (arXiv 2307.08691, abstract)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to run a training step.

    Attributes:
        cards: world size. tensor, pipeline, context, expert: degrees of parallelism.
        chunks: model chunks per pipeline stage (virtual pipeline). schedule: name of the pipeline schedule.
        micro_batch: sequences of one forward. global_batch: sequences of one step, over all ranks.
        fsdp_shard: ranks that share one copy of the parameters; fewer than data parallel is HSDP; 0: all.
        sequence_parallel: norms and residuals split over the tensor-parallel ranks.
        reduce_in_fp32: gradients are reduced in FP32, else in the parameters' dtype.
        overlap_grad_reduce, overlap_param_gather: data-parallel collectives beside compute.
        overlap_tensor: share of tensor-parallel collectives hidden behind products (async TP, user buffers).
        overlap_experts: dispatch and combine run beside another micro-batch's compute.
        graphs: what is launched as captured graphs. fused: norms, activations and losses are single kernels.
        eager: whose code runs where they are not.
        attention: which generation of attention kernels runs.
        host: how much more the framework's host does than issue the operations written here.
        first_layers_fewer, last_layers_fewer: layers missing from the first and last stage.
        imbalance: load of the busiest expert rank over the mean; 1: balanced routing.
        dispatcher: how tokens reach their experts. deepep: date of that library (ISO), empty: today's.
        counts_on_host: the host waits for how many tokens each expert got before it issues their products
            (no token is dropped, sizes differ); captured steps cannot.
        expert_calls: experts' products and casts are issued one by one (Transformer Engine), not as one kernel.
        loss: how the cross entropy is computed.
        zero_copy: FSDP's flat buffers are where parameters and gradients live (Megatron-FSDP), nothing is copied.
        segment: tokens of the sequences that are packed into one and do not attend to each other; 0: not packed.
        adapter_rank: of low-rank adapters (LoRA) on the attention products, all else frozen; 0: none.
        adapts_all: adapters on the dense feed-forward products as well.
        fp8_parameters: FP8 weights are kept and gathered, without 16-bit ones beside them.
        fp8_activation_inputs: what goes into the activation function is kept for backward in FP8.
        ends_apart: FSDP gathers embedding and head by themselves, not as one unit that stays.
        compiled_loss: under FSDP, the loss is compiled as the layers are: logits stay in 16 bits, no FP32 copies.
    """

    cards: int
    global_batch: int
    sequence: int
    micro_batch: int = 1
    tensor: int = 1
    pipeline: int = 1
    chunks: int = 1
    context: int = 1
    expert: int = 1
    expert_tensor: int = 1
    schedule: str = "1f1b"
    precision: Precision = Precision.BF16
    recompute: Recompute = Recompute.NONE
    sharding: Sharding = Sharding.ZERO1
    fsdp_shard: int = 0
    sequence_parallel: bool = True
    reduce_in_fp32: bool = True
    overlap_grad_reduce: bool = True
    overlap_param_gather: bool = True
    overlap_tensor: bool = False
    overlap_experts: bool = False
    graphs: frozenset[GraphScope] = frozenset()
    fused: bool = True
    eager: EagerCode = EagerCode.TORCHTITAN_2024
    attention: AttentionKernel = AttentionKernel.FLASH
    host: HostLoad = HostLoad.FUSED
    first_layers_fewer: int = 0
    last_layers_fewer: int = 0
    imbalance: float = 1.0
    dispatcher: Dispatcher = Dispatcher.DEEPEP
    deepep: str = ""
    counts_on_host: bool = False
    expert_calls: bool = False
    loss: LossKernel = LossKernel.FUSED
    segment: int = 0
    zero_copy: bool = False
    adapter_rank: int = 0
    adapts_all: bool = False
    fp8_parameters: bool = False
    fp8_activation_inputs: bool = False
    compiled_loss: bool = False
    ends_apart: bool = False

    def __post_init__(self) -> None:
        degrees = self.tensor, self.pipeline, self.chunks, self.context, self.expert, self.expert_tensor
        if min(*degrees, self.cards, self.micro_batch, self.global_batch, self.sequence) < 1:
            raise self._bad("every degree, batch and length is at least 1")
        if self.cards % self.model_parallel:
            raise self._bad(
                f"tensor {self.tensor} x pipeline {self.pipeline} x context {self.context} = "
                f"{self.model_parallel} does not divide {self.cards} cards"
            )
        if self.global_batch % (self.micro_batch * self.data):
            raise self._bad(
                f"the global batch {self.global_batch} is not a multiple of micro-batch {self.micro_batch} x "
                f"data parallel {self.data}"
            )
        if self.stage_ranks % (self.expert * self.expert_tensor):
            raise self._bad(
                f"expert {self.expert} x expert tensor {self.expert_tensor} does not divide the "
                f"{self.stage_ranks} ranks of a pipeline stage"
            )
        if self.fsdp_shard and self.data_and_context % self.fsdp_shard:
            raise self._bad(f"{self.fsdp_shard} shards do not divide {self.data_and_context} data ranks")
        if self.sequence % self.context:
            raise self._bad(f"context {self.context} does not divide the sequence {self.sequence}")

    def _bad(self, why: str) -> WindtunnelError:
        return WindtunnelError(
            "E205",
            f"the layout does not multiply up: {why}",
            hint="choose degrees with tensor x pipeline x context x data = cards and a batch that divides",
            values={
                "cards": self.cards,
                "tensor": self.tensor,
                "pipeline": self.pipeline,
                "context": self.context,
                "expert": self.expert,
                "micro-batch": self.micro_batch,
                "global batch": self.global_batch,
            },
        )

    @property
    def fused_norm(self) -> bool:
        """Whether RMSNorm is one kernel."""
        return self.fused or self.eager.fuses_norm

    @property
    def compiled(self) -> bool:
        """Whether the layers' kernels are those of torch.compile."""
        return self.fused and self.host is HostLoad.COMPILED

    @property
    def by_dtensor(self) -> bool:
        """Whether layers are split over tensor-parallel ranks by PyTorch's DTensor, not by Megatron-LM's layers.

        FSDP2 wants DTensors; Megatron-FSDP, which copies nothing, wraps Megatron-LM's layers.
        """
        return self.sharding is Sharding.FSDP and not self.zero_copy

    @property
    def wraps_single(self) -> bool:
        """Whether FSDP2 also holds experts that a rank has for itself, which are then cast and copied (TorchTitan)."""
        return self.sharding is Sharding.FSDP and not self.fused and self.eager is EagerCode.TORCHTITAN

    @property
    def drops(self) -> bool:
        """Whether hidden states are dropped at random, as GPT's recipes of 2021 do."""
        return self.host is HostLoad.EAGER_2021

    @property
    def trains_base(self) -> bool:
        """Whether the model's own parameters get gradients."""
        return self.adapter_rank == 0

    @property
    def model_parallel(self) -> int:
        """Cards that hold one copy of the activations of a micro-batch."""
        return self.tensor * self.pipeline * self.context

    @property
    def data(self) -> int:
        """Data-parallel degree: copies of the model that see different sequences."""
        return self.cards // self.model_parallel

    @property
    def data_and_context(self) -> int:
        """Ranks over which gradients are summed."""
        return self.data * self.context

    @property
    def stage_ranks(self) -> int:
        """Ranks of one pipeline stage."""
        return self.cards // self.pipeline

    @property
    def expert_data(self) -> int:
        """Ranks that hold the same experts."""
        return self.stage_ranks // (self.expert * self.expert_tensor)

    @property
    def gathers_keys(self) -> bool:
        """Whether context-parallel ranks gather keys and values whole, as TorchTitan's flex attention does; others
        pass them round a ring (Transformer Engine)."""
        return self.context > 1 and not self.fused and self.eager is EagerCode.TORCHTITAN

    @property
    def shards_stages(self) -> bool:
        """Whether PyTorch's stages run FSDP2: gathered once a step, gradients summed whole and reduced last."""
        return self.pipeline > 1 and self.sharding is Sharding.FSDP and not self.zero_copy

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one step on one rank."""
        return self.global_batch // (self.micro_batch * self.data)

    @property
    def shards(self) -> int:
        """Ranks that share one copy of what is sharded."""
        return self.fsdp_shard or self.data_and_context

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch on one rank."""
        return self.micro_batch * self.sequence // self.context

    @property
    def sequence_tokens(self) -> int:
        """Tokens of a micro-batch in the sequence-parallel parts of one rank."""
        return self.tokens // self.tensor if self.sequence_parallel else self.tokens

    @property
    def step_tokens(self) -> int:
        """Tokens of one step over all cards."""
        return self.global_batch * self.sequence

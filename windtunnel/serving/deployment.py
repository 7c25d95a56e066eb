"""A model on cards: layout, memory, step times, and the replicas that serve it.

Without a layout asked for: latent-attention models with experts take data-parallel attention with all cards as
expert ranks, as their public deployments do; others the smallest tensor-parallel group that leaves a tenth of
the card for the cache, and further cards are further replicas.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cached_property

from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layout import Precision
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving import ranks
from windtunnel.serving.attention_dp import AttentionDpBalance, AttentionDpOptions
from windtunnel.serving.engine import Replica
from windtunnel.serving.expert_load import BALANCED, busiest_over_mean, includes_chance
from windtunnel.serving.host_link import WritePolicy
from windtunnel.serving.hybrid import scheduler_for
from windtunnel.serving.kernel_library import EXCHANGE_SMS, Stack
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.memory import CACHE_BYTES, CardMemory, StatePool, card_memory
from windtunnel.serving.offload import Offload, OffloadOptions
from windtunnel.serving.prefill_budget import SglangOptions, StateStrategy
from windtunnel.serving.queue_order import SchedulePolicy
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sglang_draft_outputs import DraftingOutputServer
from windtunnel.serving.sglang_kinds import sglang_scheduler_for
from windtunnel.serving.sglang_outputs import OutputServer
from windtunnel.serving.sglang_prompts import HostPromptServer, PromptServer
from windtunnel.serving.sglang_states import states_per_sequence
from windtunnel.serving.speculation import Speculation
from windtunnel.serving.step_time import StepTime
from windtunnel.serving.vision import TowerTime
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_ffn import Moe
from windtunnel.specs.model_mixers import Latent
from windtunnel.specs.targets import cluster_of

CARDS_TRIED = 1024
CACHE_SHARE = 0.1
KEY_TOKENS = 16
"""As finely is it known what live prompts share, where the engine looks closer than at its own blocks."""
LATENT_BLOCK = 64
"""MLA kernels work on blocks of 64 tokens."""
BLOCK = {Stack.VLLM: 16, Stack.SGLANG: 1, Stack.TRTLLM: 32}
"""Else the engines' defaults: ``--block-size``, ``--page-size``, ``tokens_per_block``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentOptions:
    """Options by their vLLM names.

    Attributes:
        tensor_parallel_size: 0: chosen. stack: whose rules and kernels.
        gpu_memory_utilization: TensorRT-LLM's share of what weights and activations leave free, too
            (``free_gpu_memory_fraction``).
        expert_imbalance: a factor on the busiest rank's load. expert_load: see ``expert_load.busiest_over_mean``.
        deepep: date of its release, empty: today's.
        num_redundant_experts: spare slots, as vLLM's and SGLang's balancers take them.
        offload: cache beyond the card. async_scheduling: SGLang's overlap scheduling, too
            (TensorRT-LLM's executor, whose admission this is, decides after each step).
        block_size: SGLang's page size, too; 0: the engine's default. sglang: what only SGLang knows.
        wide_inputs, narrow_experts, eight_bit_rows: see ``ServingLayout``.
        gemm_allreduce_plugin: TensorRT-LLM's, see ``ServingLayout.fused_sums``.
        max_utilization: TensorRT-LLM's capacity scheduler of that name, which admits what fits now and preempts.
        attention_dp: TensorRT-LLM's ``attention_dp_config``.
        cudagraph_capture_sizes: batches with a captured graph; empty: vLLM's.
    """

    tensor_parallel_size: int = 0
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    precision: Precision = Precision.BF16
    kv_cache_dtype: str = "bfloat16"
    gpu_memory_utilization: float = 0.9
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 0
    enable_prefix_caching: bool = True
    enforce_eager: bool = False
    max_utilization: bool = False
    enable_chunked_prefill: bool = True
    attention_dp: AttentionDpOptions = field(default_factory=AttentionDpOptions)
    gemm_allreduce_plugin: bool = False
    wide_inputs: bool = False
    narrow_experts: bool = False
    eight_bit_rows: bool = False
    cudagraph_capture_sizes: tuple[int, ...] = ()
    enable_dbo: bool = False
    expert_imbalance: float = 1.0
    expert_load: str = BALANCED
    num_redundant_experts: int = 0
    deepep: str = ""
    stack: Stack = Stack.VLLM
    schedule_policy: SchedulePolicy = SchedulePolicy.FCFS
    async_scheduling: bool = True
    sglang: SglangOptions = field(default_factory=SglangOptions)
    offload: OffloadOptions = field(default_factory=OffloadOptions)
    speculation: Speculation = field(default_factory=Speculation)


class Side(Enum):
    """What replicas serve: both, or by SGLang's rules prompts or outputs for replicas of the other kind."""

    BOTH = auto()
    PROMPTS = auto()
    OUTPUTS = auto()


@dataclass(frozen=True)
class Deployment:
    """``replicas`` copies of ``model`` on ``cluster``, each spread as ``layout`` says."""

    model: ModelSpec
    cluster: Cluster
    layout: ServingLayout
    replicas: int
    memory: CardMemory
    options: DeploymentOptions
    step: StepTime

    def start(self, first_number: int = 0, together: bool = True, side: Side = Side.BOTH) -> list[Replica]:
        """Fresh replicas at time 0; ``together``: their clocks run together, so that they can share storage."""
        offload = None if side is Side.OUTPUTS else self._offload
        shelf = offload.shelf() if offload else None
        found = []
        for number in range(self.replicas):
            if offload and not together:
                shelf = offload.shelf()
            tiers = [offload.rank(shelf) if offload else None for _ in range(self.layout.data)]
            ranks = [self._rank(one, side) for one in tiers]
            asked = self.options.stack is Stack.TRTLLM and self.options.attention_dp.enable_balance
            balance = AttentionDpBalance(self.options.attention_dp) if asked and len(ranks) > 1 else None
            found.append(Replica(ranks, self.step, first_number + number, balance))
        return found

    @cached_property
    def _offload(self) -> Offload | None:
        wanted = self.options.offload
        if not wanted.wanted or not self.options.enable_prefix_caching:
            return None
        return Offload(wanted, self.model, self.memory, self.layout, self.cluster)

    @property
    def hands_over(self) -> bool:
        """Whether servers of prompts and of outputs wait for each other: SGLang's, without recurrent states."""
        return self.options.stack is Stack.SGLANG and not self.memory.state_slots

    def _rank(self, tiers: KvTiers | None = None, side: Side = Side.BOTH) -> Scheduler:
        memory, options = self.memory, self.options
        chosen = SchedulerOptions(
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens,
            block_size=memory.block_tokens,
            num_gpu_blocks=max(1, memory.blocks),
            enable_prefix_caching=options.enable_prefix_caching,
            enable_chunked_prefill=options.enable_chunked_prefill,
            prefill_first=options.stack is Stack.SGLANG,
            guaranteed_no_evict=options.stack is Stack.TRTLLM and not options.max_utilization,
            num_speculative_tokens=options.speculation.tokens,
            acceptance=options.speculation.acceptance,
            state_groups=memory.blocks_per_sequence,
            schedule_policy=options.schedule_policy,
            async_scheduling=options.async_scheduling and options.stack is not Stack.TRTLLM,
        )
        if memory.state_slots:
            most = memory.state_slots // _states_per_sequence(options)
            chosen = replace(chosen, max_num_seqs=min(chosen.max_num_seqs, most))
        elif side is Side.OUTPUTS:
            served = DraftingOutputServer if chosen.num_speculative_tokens else OutputServer
            return served(replace(chosen, enable_prefix_caching=False), options.sglang)
        elif side is Side.PROMPTS:
            if tiers is not None and len(tiers.tiers) == 1:
                return HostPromptServer(chosen, options.sglang, tiers)
            return PromptServer(chosen, options.sglang, tiers)
        if options.stack is Stack.SGLANG:
            host_states = self._offload.states if self._offload else 0
            return sglang_scheduler_for(chosen, options.sglang, memory, tiers, host_states)
        return scheduler_for(chosen, tiers)

    def fits(self, request: Request, side: Side = Side.BOTH) -> bool:
        """Whether a rank could ever hold the request with all its output."""
        tokens = request.prompt_tokens + request.output_tokens
        return tokens <= self.cache_tokens and self._probes[side].fits(request)

    @cached_property
    def _probes(self) -> dict[Side, Scheduler]:
        sides = Side if self.hands_over else (Side.BOTH,)
        return {side: self._rank(side=side) for side in sides}

    @property
    def bursts(self) -> bool:
        """Whether drafts come as they are accepted; else they are spread evenly."""
        return self._rank(self._offload.rank(self._offload.shelf()) if self._offload else None).bursts

    @property
    def state_slots(self) -> int:
        """Sequences for whose recurrent state room is kept: at most half of the cache goes there."""
        memory = self.memory
        if not memory.blocks_per_sequence:
            return 0
        return min(self.options.max_num_seqs, memory.blocks // (2 * memory.blocks_per_sequence))

    @property
    def key_tokens(self) -> int:
        """Tokens behind one key of a live prompt: a block, or fewer where tokens after it or within it count."""
        block = self.memory.block_tokens
        finer = self.options.speculation.tokens > 0 or block < KEY_TOKENS
        return KEY_TOKENS if finer else block

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache of one attention rank holds."""
        blocks = self.memory.blocks - self.memory.blocks_per_sequence * self.state_slots
        return max(0, blocks) * self.memory.block_tokens

    def words(self) -> str:
        """The layout in words."""
        layout = self.layout
        parts = [f"TP {layout.tensor}"]
        if layout.data > 1:
            parts.append(f"DP attention {layout.data}")
        if layout.expert > 1:
            parts.append(f"EP {layout.expert}")
        parts.append(str(layout.precision))
        parts.append(f"cache {layout.cache}")
        if self.options.speculation.tokens:
            parts.append(f"MTP {self.options.speculation.tokens}")
        if self.options.enable_dbo:
            parts.append("two-batch overlap")
        return f"{self.replicas} × ({', '.join(parts)})"


def deploy(model: ModelSpec, cluster: Cluster, options: DeploymentOptions, longest: int = 1) -> Deployment:
    """Lay the model out on the cluster.

    Args:
        longest: tokens of the longest sequence, which must fit into one rank's cache.

    Raises:
        AnswerIsNo: E651, it does not fit; says how many cards would do.
        WindtunnelError: E650, cache tiers for a model with recurrent state (but SGLang's host memory), storage that
            is not written through; E653, the layout does not divide the cards or the model; E209, no recipe for
            the model; E501, the chip lacks the precision.
    """
    layout = _loaded(_layout(model, cluster, options), model, options)
    memory = _memory(model, layout, cluster, options)
    plain = options.offload.storage_bytes == 0 and memory.state_slots > 0
    if options.offload.wanted and memory.state_bytes and not plain:
        raise WindtunnelError(
            "E650",
            f"{model.title or model.name} keeps recurrent states: beyond the card only SGLang's host memory is there",
            hint="--scheduler sglang --enable-hierarchical-cache without --kv-storage-size, or leave out tiers",
        )
    if options.offload.storage_bytes and options.sglang.hicache_write_policy is not WritePolicy.WRITE_THROUGH:
        raise WindtunnelError(
            "E650",
            f"storage behind host memory is not modelled with {options.sglang.hicache_write_policy}",
            hint="leave out --kv-storage-size, or use --hicache-write-policy write_through",
        )
    if memory.state_slots and options.enable_prefix_caching:
        _check_strategy(options, memory)
    found = Deployment(
        model, cluster, layout, cluster.cards // layout.cards, memory, options,
        StepTime(
            architecture_of(model), layout, cluster, options.speculation, options.enable_dbo, options.stack,
            options.cudagraph_capture_sizes,
        ),
    )  # fmt: skip
    tower = architecture_of(model, 1).vision if model.vision else None
    if tower is not None:
        found.step.vision = TowerTime(tower, layout, cluster, options.stack)
    if found.cache_tokens < longest:
        raise _too_small(found, longest)
    return found


def _check_strategy(options: DeploymentOptions, memory: CardMemory) -> None:
    """SGLang's own conditions (``validate_mamba_no_buffer``)."""
    plain = memory.block_tokens == 1 and not options.async_scheduling
    if state_strategy(options) is StateStrategy.NO_BUFFER and not plain:
        raise WindtunnelError(
            "E650",
            "SGLang's no_buffer needs pages of one token and no overlap",
            hint="--page-size 1 --disable-overlap-schedule, or --mamba-radix-cache-strategy extra_buffer",
            values={"page size": memory.block_tokens, "overlap": options.async_scheduling},
        )


def _memory(model: ModelSpec, layout: ServingLayout, cluster: Cluster, o: DeploymentOptions) -> CardMemory:
    latent = any(isinstance(layer.mixer, Latent) for layer in model.layers)
    return card_memory(
        model, layout, cluster.chip, utilization=o.gpu_memory_utilization,
        batched_tokens=o.max_num_batched_tokens, sequences=o.max_num_seqs,
        block_tokens=o.block_size or (LATENT_BLOCK if latent else BLOCK[o.stack]),
        of_free=o.stack is Stack.TRTLLM, pool=_state_pool(o), drafts=o.speculation.tokens,
    )  # fmt: skip


def _states_per_sequence(o: DeploymentOptions) -> int:
    strategy = state_strategy(o)
    return states_per_sequence(
        o.async_scheduling, o.enable_prefix_caching, strategy is StateStrategy.EXTRA_BUFFER
    )


def state_strategy(o: DeploymentOptions) -> StateStrategy:
    """Where SGLang keeps older recurrent states."""
    page = o.block_size or BLOCK[Stack.SGLANG]
    return o.sglang.mamba_radix_cache_strategy.chosen(o.async_scheduling, page)


def _state_pool(o: DeploymentOptions) -> StatePool | None:
    if o.stack is not Stack.SGLANG:
        return None
    return StatePool(
        ratio=o.sglang.mamba_full_memory_ratio, per_sequence=_states_per_sequence(o), sequences=o.max_num_seqs,
        drafts=o.speculation.tokens + 1 if o.speculation.tokens else 0, reuse=o.enable_prefix_caching,
    )  # fmt: skip


def _layout(model: ModelSpec, cluster: Cluster, options: DeploymentOptions) -> ServingLayout:
    base = ServingLayout(
        precision=options.precision,
        cache=options.kv_cache_dtype,
        graphs=not options.enforce_eager,
        imbalance=options.expert_imbalance,
        redundant=options.num_redundant_experts,
        drawn=not includes_chance(options.expert_load),
        deepep=options.deepep,
        exchange_sms=EXCHANGE_SMS.get(options.stack, 0),
        fused_sums=options.gemm_allreduce_plugin,
        wide_inputs=options.wide_inputs,
        narrow_experts=options.narrow_experts,
        eight_bit_rows=options.eight_bit_rows,
    )
    asked = options.tensor_parallel_size or options.data_parallel_size > 1 or options.enable_expert_parallel
    if not asked:
        return _chosen(model, cluster, options, base)
    if (
        not options.tensor_parallel_size and options.data_parallel_size == 1
    ):  # experts apart, the rest is chosen
        chosen = _chosen(model, cluster, options, base)
        return replace(chosen, expert=chosen.cards) if _routed(model) else chosen
    tensor, data = options.tensor_parallel_size or 1, options.data_parallel_size
    if cluster.cards % (tensor * data):
        raise WindtunnelError(
            "E653",
            f"{tensor} × {data} ranks do not divide {cluster.cards} cards",
            hint="choose tensor-parallel × data-parallel sizes that divide the cards",
            values={"tensor parallel": tensor, "data parallel": data, "cards": cluster.cards},
        )
    if not _routed(model):
        data = 1  # without experts, data-parallel ranks exchange nothing: they are replicas
    expert = tensor * data if options.enable_expert_parallel or (data > 1 and _routed(model)) else 1
    if not ranks.divides(model, tensor, experts_apart=expert > 1):
        able = [n for n in ranks.sizes(model, experts_apart=expert > 1) if not cluster.cards % (n * data)]
        raise WindtunnelError(
            "E653",
            f"{tensor} tensor-parallel ranks cannot share {model.title or model.name} evenly",
            hint="--tp " + ", ".join(map(str, able)) if able else "choose another number of cards",
            values={"tensor parallel": tensor, "layers": ranks.heads_in_words(model)},
        )
    return replace(base, tensor=tensor, data=data, expert=expert)


def _loaded(layout: ServingLayout, model: ModelSpec, options: DeploymentOptions) -> ServingLayout:
    """The layout with the imbalance that its expert ranks come to."""
    experts = max((layer.ffn.experts for layer in model.layers if isinstance(layer.ffn, Moe)), default=0)
    if layout.expert == 1 or not experts:
        return layout
    uneven = busiest_over_mean(options.expert_load, experts, layout.expert, options.num_redundant_experts)
    return replace(layout, imbalance=layout.imbalance * uneven)


def _routed(model: ModelSpec) -> bool:
    return any(isinstance(layer.ffn, Moe) for layer in model.layers)


def _chosen(
    model: ModelSpec, cluster: Cluster, options: DeploymentOptions, base: ServingLayout
) -> ServingLayout:
    cards = cluster.cards
    latent = any(isinstance(layer.mixer, Latent) for layer in model.layers)
    if latent and _routed(model) and cards > 1:
        return replace(base, data=cards, expert=cards)
    tensor = 1
    while tensor <= min(cards, cluster.node.cards) and ranks.divides(model, tensor, experts_apart=False):
        layout = replace(base, tensor=tensor)
        memory = _memory(model, layout, cluster, options)
        if not cards % tensor and memory.cache >= CACHE_SHARE * memory.usable:
            return layout
        tensor *= 2
    able = [n for n in ranks.sizes(model, experts_apart=False) if not cards % n]
    apart = [n for n in ranks.sizes(model, experts_apart=True) if not cards % n and n <= cluster.node.cards]
    # sums of every layer over nodes, or ranks that the model has no heads for: rather experts over all cards
    if _routed(model) and apart and (cards > cluster.node.cards or cards not in able):
        return replace(base, tensor=apart[-1], data=cards // apart[-1], expert=cards)
    return replace(base, tensor=able[-1])


def _too_small(found: Deployment, longest: int) -> AnswerIsNo:
    memory, options = found.memory, found.options
    needed = _enough(found, longest)
    if needed:
        hint = f"--on {found.cluster.chip.name}:{needed} is the first size of power two that holds it"
    elif found.cache_tokens and CACHE_BYTES[found.layout.cache] > 1:
        hint = "shorter sequences, an 8-bit cache (--kv-precision fp8) or cards with more memory"
    else:
        hint = "use a smaller precision, a smaller model or cards with more memory"
    held = f"{max(0, found.cache_tokens):,} tokens of cache a rank"
    return AnswerIsNo(
        "E651",
        f"{found.model.title or found.model.name} does not fit on {found.cluster.cards} × "
        f"{found.cluster.chip.title}: {held}, the longest sequence has {longest:,}",
        hint=hint,
        values={
            "weights GiB a card": round(memory.weights / 2**30, 1),
            "activations GiB a card (estimated)": round(memory.activations / 2**30, 1),
            "usable GiB a card": round(memory.usable / 2**30, 1),
            "layout": found.words(),
            "precision": str(options.precision),
            "cards needed": needed or "more than 1,024",
        },
    )


def _enough(found: Deployment, longest: int) -> int:
    """The first power of two of cards that holds the model and the longest sequence; 0: none tried."""
    options = replace(
        found.options, tensor_parallel_size=0, data_parallel_size=1, enable_expert_parallel=False
    )
    cards = 1
    while cards <= CARDS_TRIED:
        cluster = cluster_of(found.cluster.chip, cards)
        layout = _chosen(found.model, cluster, options, replace(found.layout, tensor=1, data=1, expert=1))
        memory = _memory(found.model, layout, cluster, options)
        trial = replace(found, cluster=cluster, layout=layout, memory=memory)
        if cards > found.cluster.cards and trial.cache_tokens >= longest:
            return cards
        cards *= 2
    return 0

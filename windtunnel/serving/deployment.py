"""A model on cards: layout, memory, step times, and the replicas that serve it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property

from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving.attention_dp import AttentionDpBalance
from windtunnel.serving.deployment_layout import chosen_layout, layout_of, loaded, memory_of
from windtunnel.serving.deployment_options import DeploymentOptions, held_states, state_strategy
from windtunnel.serving.engine import Replica
from windtunnel.serving.host_link import WritePolicy
from windtunnel.serving.host_time import captured_prompts
from windtunnel.serving.hybrid import scheduler_for
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.memory import CACHE_BYTES, CardMemory
from windtunnel.serving.offload import Offload
from windtunnel.serving.prefill_budget import StateStrategy
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sglang_draft_outputs import DraftingOutputServer
from windtunnel.serving.sglang_kinds import sglang_scheduler_for
from windtunnel.serving.sglang_outputs import OutputServer
from windtunnel.serving.sglang_prompts import HostPromptServer, PromptServer
from windtunnel.serving.step_seconds import Scaled
from windtunnel.serving.step_time import StepTime
from windtunnel.serving.vision import TowerTime
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.targets import cluster_of

CARDS_TRIED = 1024
KEY_TOKENS = 16
"""As finely is it known what live prompts share, where the engine looks closer than at its own blocks."""


class Side(Enum):
    """What replicas serve: both, or by SGLang's rules prompts or outputs for replicas of the other kind."""

    BOTH = auto()
    PROMPTS = auto()
    OUTPUTS = auto()


@dataclass(frozen=True)
class Deployment:
    """``replicas`` copies of ``model`` on ``cluster``, each spread as ``layout`` says.

    ``step``: what a step takes. ``slower``: a factor on all of its seconds once the deployment is started: an end of
    an interval, or an older engine.
    """

    model: ModelSpec
    cluster: Cluster
    layout: ServingLayout
    replicas: int
    memory: CardMemory
    options: DeploymentOptions
    step: StepTime
    slower: float = 1.0

    def start(self, first_number: int = 0, together: bool = True, side: Side = Side.BOTH) -> list[Replica]:
        """Fresh replicas at time 0; ``together``: their clocks run together, so that they can share storage."""
        offload = None if side is Side.OUTPUTS else self._offload
        shelf = offload.shelf() if offload else None
        step = self.step if self.slower == 1.0 else Scaled(self.step, self.slower)
        found = []
        for number in range(self.replicas):
            if offload and not together:
                shelf = offload.shelf()
            tiers = [offload.rank(shelf) if offload else None for _ in range(self.layout.data)]
            ranks = [self._rank(one, side) for one in tiers]
            asked = self.options.stack is Stack.TRTLLM and self.options.attention_dp.enable_balance
            balance = AttentionDpBalance(self.options.attention_dp) if asked and len(ranks) > 1 else None
            found.append(Replica(ranks, step, first_number + number, balance))
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
            most = memory.state_slots // held_states(options)
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

    @cached_property
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
    layout = loaded(layout_of(model, cluster, options), model, cluster, options)
    memory = memory_of(model, layout, cluster, options)
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
            captured_prompts(options.stack, cluster.chip, layout, options.built_engine),
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
        layout = chosen_layout(
            found.model, cluster, options, replace(found.layout, tensor=1, data=1, expert=1)
        )
        memory = memory_of(found.model, layout, cluster, options)
        trial = replace(found, cluster=cluster, layout=layout, memory=memory)
        if cards > found.cluster.cards and trial.cache_tokens >= longest:
            return cards
        cards *= 2
    return 0

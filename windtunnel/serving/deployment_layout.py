"""How a model is spread over cards: as asked for, or chosen, and the memory that this takes of one.

Without a layout asked for: latent-attention models with experts take data-parallel attention with all cards as
expert ranks, as their public deployments do; others the smallest tensor-parallel group that leaves a tenth of
the card for the cache, and further cards are further replicas.
"""

from __future__ import annotations

from dataclasses import replace

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.serving_layout import Imbalance, ServingLayout
from windtunnel.serving import ranks
from windtunnel.serving.deployment_options import BLOCK, LATENT_BLOCK, DeploymentOptions, held_states
from windtunnel.serving.expert_load import imbalances, includes_chance
from windtunnel.serving.expert_placement import ExpertRanks
from windtunnel.serving.kernel_library import EXCHANGE_SMS, Stack
from windtunnel.serving.memory import CardMemory, StatePool, card_memory
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_ffn import Moe
from windtunnel.specs.model_mixers import Latent

CACHE_SHARE = 0.1
"""Of a card's usable memory, which a chosen layout leaves for the cache."""


def layout_of(model: ModelSpec, cluster: Cluster, options: DeploymentOptions) -> ServingLayout:
    """As asked for, and chosen where nothing is. Raises E653."""
    base = ServingLayout(
        precision=options.precision,
        cache=options.kv_cache_dtype,
        graphs=not options.enforce_eager,
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
        return chosen_layout(model, cluster, options, base)
    if (
        not options.tensor_parallel_size and options.data_parallel_size == 1
    ):  # experts apart, the rest is chosen
        chosen = chosen_layout(model, cluster, options, base)
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


def loaded(
    layout: ServingLayout, model: ModelSpec, cluster: Cluster, options: DeploymentOptions
) -> ServingLayout:
    """The layout with the imbalance that its expert ranks come to."""
    routed = [layer.ffn for layer in model.layers if isinstance(layer.ffn, Moe)]
    found: tuple[Imbalance, ...] = (Imbalance(),)
    if layout.expert > 1 and routed:
        ffn = max(routed, key=lambda one: one.experts)
        where = ExpertRanks(
            ffn.experts, layout.expert, options.num_redundant_experts, ffn.groups, cluster.node.cards
        )
        found = imbalances(options.expert_load, where)
    parts = tuple(one.times(options.expert_imbalance) for one in found)
    return replace(layout, imbalance=Imbalance.mean(parts), parts=parts if len(parts) > 1 else ())


def chosen_layout(
    model: ModelSpec, cluster: Cluster, options: DeploymentOptions, base: ServingLayout
) -> ServingLayout:
    """Latent attention with experts: data-parallel; else the fewest tensor-parallel ranks that leave room."""
    cards = cluster.cards
    latent = any(isinstance(layer.mixer, Latent) for layer in model.layers)
    if latent and _routed(model) and cards > 1:
        return replace(base, data=cards, expert=cards)
    tensor = 1
    while tensor <= min(cards, cluster.node.cards) and ranks.divides(model, tensor, experts_apart=False):
        layout = replace(base, tensor=tensor)
        memory = memory_of(model, layout, cluster, options)
        if not cards % tensor and memory.cache >= CACHE_SHARE * memory.usable:
            return layout
        tensor *= 2
    able = [n for n in ranks.sizes(model, experts_apart=False) if not cards % n]
    apart = [n for n in ranks.sizes(model, experts_apart=True) if not cards % n and n <= cluster.node.cards]
    # sums of every layer over nodes, or ranks that the model has no heads for: rather experts over all cards
    if _routed(model) and apart and (cards > cluster.node.cards or cards not in able):
        return replace(base, tensor=apart[-1], data=cards // apart[-1], expert=cards)
    return replace(base, tensor=able[-1])


def memory_of(model: ModelSpec, layout: ServingLayout, cluster: Cluster, o: DeploymentOptions) -> CardMemory:
    """Of the fullest card."""
    latent = any(isinstance(layer.mixer, Latent) for layer in model.layers)
    return card_memory(
        model, layout, cluster.chip, utilization=o.gpu_memory_utilization,
        batched_tokens=o.max_num_batched_tokens, sequences=o.max_num_seqs,
        block_tokens=o.block_size or (LATENT_BLOCK if latent else BLOCK[o.stack]),
        of_free=o.stack is Stack.TRTLLM, pool=_state_pool(o), drafts=o.speculation.tokens,
    )  # fmt: skip


def _state_pool(o: DeploymentOptions) -> StatePool | None:
    if o.stack is not Stack.SGLANG:
        return None
    return StatePool(
        ratio=o.sglang.mamba_full_memory_ratio, per_sequence=held_states(o), sequences=o.max_num_seqs,
        drafts=o.speculation.tokens + 1 if o.speculation.tokens else 0, reuse=o.enable_prefix_caching,
    )  # fmt: skip


def _routed(model: ModelSpec) -> bool:
    return any(isinstance(layer.ffn, Moe) for layer in model.layers)

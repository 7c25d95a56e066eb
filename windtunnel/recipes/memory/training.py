"""The memory of a training step as a program: its units by a model's layers, under a layout."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.program.program import Category, Program
from windtunnel.recipes.fit.sharding import stages
from windtunnel.recipes.layout import EagerCode, Layout, Precision, Sharding
from windtunnel.recipes.memory import parts
from windtunnel.recipes.memory.drawn import joined
from windtunnel.recipes.memory.graph import Code, Graph, Value
from windtunnel.recipes.memory.layers import LayerCode, rotary_table_bytes
from windtunnel.recipes.memory.pipelined import Block, PipelinedStep, checkpoints
from windtunnel.recipes.memory.sharded import ShardedStep, Unit
from windtunnel.recipes.memory.stage_shards import ShardedStage
from windtunnel.recipes.memory.tape import Tape
from windtunnel.recipes.memory.vision import tower_codes
from windtunnel.recipes.tensor_parallel import at_boundaries
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_mixers import Attention, Latent

ID_BYTES = 8


def sharded_program(model: ModelSpec, layout: Layout, state_bytes: int, patches: int = 0) -> Program:
    """Two steps of ``model`` under FSDP, without a pipeline.

    ``state_bytes``: of the optimizer, a parameter. ``patches``: of the pictures of every sequence.
    """
    tape = Tape()
    tables: list[Value] = []
    units = _units(model, layout, tables, patches)
    prefetches = layout.expert > 1 and not layout.fused and layout.eager is EagerCode.TORCHTITAN
    tower = model.vision
    patches = max(patches, tower.merge) if tower else 0
    rows = layout.micro_batch * patches
    merged = rows // tower.merge * tower.output * parts.width_of(layout) if tower else 0
    step = ShardedStep(
        tape, layout, units, state_bytes, prefetches=prefetches, merged_bytes=merged, hidden=model.hidden
    )
    rotary_dims = _rotary_dims(model)

    def batch(tape: Tape) -> list[Value]:
        tape.scope = "batch"
        ids = [
            Value(
                tape.allocate(layout.tokens * ID_BYTES, "aten.randint", category=Category.INPUT),
                layout.tokens,
                ID_BYTES,
            )
            for _ in range(2)
        ]
        if tower and patches:
            elements = rows * tower.patch_elements
            pixels = tape.allocate(elements * parts.WIDE, "aten.randn", category=Category.INPUT)
            ids.insert(1, Value(pixels, elements, parts.WIDE))
            del pixels
        sizes = rotary_table_bytes(layout, rotary_dims)
        tables[:] = [Value(tape.allocate(nbytes, "aten._to_copy"), nbytes, 1) for nbytes in sizes]
        return [*ids, *tables]

    held = step.run(batch, lambda graph, logits: loss(graph, logits, layout))
    tables.clear()
    program = tape.program("recipe", layout.cards)
    del held
    return program


def stage_program(model: ModelSpec, layout: Layout, state_bytes: int, stage: int) -> Program:
    """Two steps of one stage of a pipeline, or of a whole model under ``Sharding.DDP`` or ``ZERO1``."""
    tape = Tape()
    sharded = layout.sharding is Sharding.FSDP
    shares = stages(
        model, layout.pipeline * layout.chunks, layout.first_layers_fewer, layout.last_layers_fewer
    )
    rows, width = layout.sequence_tokens, parts.width_of(layout)
    stream = rows * model.hidden * model.streams
    tables = [
        Value(tape.allocate(n, "aten._to_copy"), n, 1)
        for n in rotary_table_bytes(layout, _rotary_dims(model))
    ]
    known: dict[object, tuple[list[int], list[int]]] = {}
    chunks: list[list[Block]] = [[] for _ in range(layout.chunks)]
    stands_in = layout.fused and not sharded
    for chunk, blocks in enumerate(chunks):
        for number in shares[stage + chunk * layout.pipeline]:
            layer = model.layers[number]
            code = LayerCode(model, layer, layout, tables)
            if layer not in known:
                known[layer] = _weights(code, stream, width)
            own, experts = known[layer]
            block = Block(f"layers.{number}", code, own, experts, checkpoints(layout), stands_in)
            blocks.append(replace(block, pieces=joined(layer, model.hidden)))
    embed, output = _embedding(model, layout), _output(model, layout)
    if stage == 0:
        chunks[0].insert(0, Block("embedding", embed, _weights(embed, layout.tokens, ID_BYTES)[0]))
        # text alone: a tower's parameters are there, and do nothing
        tower = [weight for unit in _tower(model, layout, 0) for weight in unit.weights]
        if tower:
            chunks[0].insert(1, Block("visual", lambda graph, x: x, tower))
    if stage == layout.pipeline - 1:
        weights = _weights(output, stream, width)[0]
        own = weights[:1] if model.tied and layout.pipeline == 1 else weights
        lose: Code = lambda graph, logits: loss(graph, logits, layout)  # noqa: E731
        if sharded:
            chunks[-1] += [Block("output", output, own), Block("loss", lose, (), is_loss=True)]
        else:
            chunks[-1].append(Block("output", _in_order(output, lose), own))
    kind = ShardedStage if sharded else PipelinedStep
    held = kind(tape, layout, chunks, stage, state_bytes, stream, model.hidden).run()
    program = tape.program("recipe", layout.cards)
    del held
    return program


def _in_order(first: Code, second: Code) -> Code:
    return lambda graph, x: second(graph, first(graph, x))


def loss(graph: Graph, logits: Value, layout: Layout) -> Value:
    """Cross entropy: as PyTorch runs it in FP32, or compiled, where FP32 stays in registers."""
    tokens = layout.tokens
    if layout.sharding is not Sharding.FSDP:  # Megatron-LM's: FP32 logits become the gradient in place
        wide = graph.constant(logits.elements * parts.WIDE, "windtunnel.cross_entropy")
        return graph.call(
            "windtunnel.cross_entropy",
            tokens,
            parts.WIDE,
            [logits],
            saves=(wide,),
            gradients=(logits.nbytes,),
        )
    if layout.compiled_loss:
        return graph.call("loss", tokens, parts.WIDE, [logits], saves=(logits,))
    wide = parts.cast(graph, logits, parts.WIDE)
    # over tensor-parallel ranks the exponential is taken beside zeros for the gradient
    beside = (wide.nbytes,) if layout.tensor > 1 else ()
    shifted = [graph.constant(nbytes, "aten.sub") for nbytes in beside]
    for nbytes in beside:
        graph.constant(nbytes, "aten.exp")
    known = graph.call(
        "aten._log_softmax", wide.elements, parts.WIDE, [wide], saves_result=True, before=beside
    )
    del wide, shifted
    return graph.call("aten.nll_loss_forward", 1, parts.WIDE, [known], saves=(known,))


def _embedding(model: ModelSpec, layout: Layout) -> Code:
    rows, width = layout.sequence_tokens, parts.width_of(layout)
    elements = rows * model.hidden * model.streams
    vocabulary = -(-model.vocabulary // layout.tensor)

    def embed(graph: Graph, ids: Value) -> Value:
        weights = ((vocabulary + model.positions) * model.hidden * width,)
        if at_boundaries(layout):  # words of other ranks are zeroed
            whole = layout.tokens * model.hidden
            found = graph.call("aten.embedding", whole, width, [ids], saves=(ids,), weights=weights)
            return parts.summed_out(graph, parts.unary(graph, "aten.mul", found, saves=False), layout)
        return graph.call("aten.embedding", elements, width, [ids], saves=(ids,), weights=weights)

    return embed


def _output(model: ModelSpec, layout: Layout) -> Code:
    """The last norm and the logits."""
    vocabulary = -(-model.vocabulary // layout.tensor)

    def output(graph: Graph, x: Value) -> Value:
        y = parts.rms_norm(graph, x, model.hidden * model.streams, layout, model.norm)
        del x
        y = parts.sized(y, layout.sequence_tokens * model.hidden)
        plain = replace(layout, precision=Precision.BF16) if layout.precision.is_fp8 else layout
        return parts.column(graph, parts.entered(graph, y, plain), model.hidden, vocabulary, plain)

    return output


def _units(model: ModelSpec, layout: Layout, tables: list[Value], patches: int) -> list[Unit]:
    rows, width = layout.sequence_tokens, parts.width_of(layout)
    stream = rows * model.hidden * model.streams
    embed, output = _embedding(model, layout), _output(model, layout)
    first = Unit("embedding", embed, _weights(embed, layout.tokens, ID_BYTES)[0], layout.shards)
    last = Unit("output", output, _weights(output, stream, width)[0], layout.shards, stays=True)
    if model.tied or not layout.ends_apart:
        first.weights = [*first.weights, *([] if model.tied else last.weights)]
        first.stays = True
        last.weights, last.root = (), first
    known: dict[object, tuple[list[int], list[int]]] = {}
    units = [first, *_tower(model, layout, patches)]
    for number, layer in enumerate(model.layers):
        code = LayerCode(model, layer, layout, tables)
        if layer not in known:
            known[layer] = _weights(code, stream, width)
        own, experts = known[layer]
        unit = Unit(
            f"layers.{number}", code, own, layout.shards,
            checkpoints=checkpoints(layout), pieces=joined(layer, model.hidden),
        )  # fmt: skip
        expert_ways = max(1, layout.expert_data * layout.shards // layout.data_and_context)
        if expert_ways == layout.shards and layout.expert * layout.expert_tensor == 1:
            unit.weights = [*own, *experts]
        else:
            unit.expert_weights, unit.expert_ways = experts, expert_ways
        units.append(unit)
    return [*units, last]


def _tower(model: ModelSpec, layout: Layout, patches: int) -> list[Unit]:
    tower = model.vision
    if tower is None:
        return []
    # without pictures its parameters and their optimizer state are there all the same
    seen = max(patches, tower.merge)
    units, elements = [], layout.micro_batch * seen * tower.patch_elements
    width = parts.WIDE
    for name, code in tower_codes(model, tower, layout, seen).items():
        own, _ = _weights(code, elements, width)
        units.append(Unit(f"visual.{name}", code, own, layout.shards, aside=True))
        elements, width = layout.micro_batch * seen * tower.hidden, parts.width_of(layout)
    return units


def _weights(code: Code, elements: int, width: int) -> tuple[list[int], list[int]]:
    """Bytes of each parameter that ``code`` uses, and of each expert tensor, by running it once."""
    graph = Graph(Tape())
    result = code(graph, graph.leaf(Value(graph.tape.allocate(elements * width, ""), elements, width)))
    del result
    own = [nbytes for node in graph.nodes if not node.expert for nbytes in node.weights]
    return own, [nbytes for node in graph.nodes if node.expert for nbytes in node.weights]


def _rotary_dims(model: ModelSpec) -> int:
    for layer in model.layers:
        if isinstance(layer.mixer, Attention):
            return layer.mixer.head_dim
        if isinstance(layer.mixer, Latent):
            return layer.mixer.rope_dim
    return 0

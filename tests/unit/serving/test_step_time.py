"""Step times: points and lines against whole programs, speculation, overlap, memory of a card."""

from __future__ import annotations

import pytest

from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving import roofline
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.grid import Line, captured, geometric
from windtunnel.serving.memory import card_memory
from windtunnel.serving.speculation import Speculation
from windtunnel.serving.step_time import StepTime
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

CASES = {
    "dense": ("qwen3-8b", "mtt-s5000", ServingLayout()),
    "tensor parallel": ("llama3-70b", "h100-sxm", ServingLayout(tensor=8)),
    "hybrid": ("qwen3.5-35b-a3b", "h20", ServingLayout(tensor=2)),
    "wide experts": (
        "deepseek-v3-671b", "mtt-s5000", ServingLayout(data=32, expert=32, precision=Precision.FP8_BLOCK),
    ),
}  # fmt: skip


def step_time(name: str) -> StepTime:
    model, chip, layout = CASES[name]
    return StepTime(architecture_of(shipped_model(model)), layout, cluster_of(chip, layout.cards))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("sequences", "context"), [(8, 1024), (64, 2048), (256, 4096)])
def test_decode_equals_the_whole_program_at_its_points(name: str, sequences: int, context: int) -> None:
    step = step_time(name)
    exact = step.exact([Batch(sequences=sequences, context=context)])
    launch = step.prices.cost.chip.graph_launch_s.value
    assert step.decode_s(sequences, sequences * context) == pytest.approx(exact.device + launch, rel=0.01)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("new", "context"), [(700, 0), (1500, 900), (4096, 0), (8192, 20000)])
def test_prefill_between_points(name: str, new: int, context: int) -> None:
    step = step_time(name)
    exact = step.exact([Batch(sequences=1, new=new, context=context)])
    assert step.mixed_s(0, 0, [(new, context)]) == pytest.approx(exact.device, rel=0.06)


@pytest.mark.parametrize("name", ["dense", "tensor parallel", "wide experts"])
@pytest.mark.parametrize(("count", "new"), [(64, 128), (28, 294), (4, 2048)])
def test_prompts_of_one_step_share_their_kernels(name: str, count: int, new: int) -> None:
    step = step_time(name)
    exact = step.exact([Batch(sequences=count, new=new)])
    assert step.mixed_s(0, 0, [(new, 0)] * count) == pytest.approx(exact.device, rel=0.08)


@pytest.mark.parametrize("name", CASES)
def test_more_work_takes_longer(name: str) -> None:
    step = step_time(name)
    by_context = [step.decode_s(32, 32 * context) for context in (16, 500, 4000, 40_000)]
    assert by_context == sorted(by_context)
    # a step may round up to a tile more or less, but twice the prompt is never cheaper
    by_tokens = [step.mixed_s(0, 0, [(new, 0)]) for new in (256, 512, 1024, 2048, 4096)]
    assert by_tokens == sorted(by_tokens)


def test_batches_are_padded_to_captured_sizes() -> None:
    step = step_time("dense")
    assert [step._padded(tokens) for tokens in (3, 17, 24, 25, 257, 512, 513)] == [
        4,
        24,
        24,
        32,
        272,
        512,
        513,
    ]
    whole = step.exact([Batch(sequences=24, context=16)]).device + step.prices.cost.chip.graph_launch_s.value
    # 17 sequences run the products of 24, but read 17 caches
    assert step.exact([Batch(sequences=17, context=16)]).device < step.decode_s(17, 17 * 16) < whole
    assert captured()[:6] == [1, 2, 4, 8, 16, 24]
    assert captured()[-1] == 512
    assert len(captured()) == 51


def test_lines_hit_their_points() -> None:
    line = Line(geometric(1, 64, 1), lambda x: float(x * x))
    assert [line.at(x) for x in (1, 2, 4, 64)] == [1.0, 4.0, 16.0, 4096.0]
    assert line.at(3) == 10.0
    assert line.at(0.5) == 1.0
    assert line.at(96) > 4096.0


def test_speculation_costs_and_yields() -> None:
    model, chip, layout = CASES["wide experts"]
    shape, cluster = architecture_of(shipped_model(model)), cluster_of(chip, layout.cards)
    plain = StepTime(shape, layout, cluster).decode_s(32, 32 * 4096)
    never = StepTime(shape, layout, cluster, Speculation(tokens=1, acceptance=0.0)).decode_s(32, 32 * 4096)
    always = StepTime(shape, layout, cluster, Speculation(tokens=1, acceptance=1.0)).decode_s(32, 32 * 4096)
    assert never > plain
    assert always == pytest.approx(never / 2)
    assert Speculation(tokens=3, acceptance=0.5).yielded == 1.875


def test_overlap_is_never_slower_and_never_below_either_part() -> None:
    model, chip, layout = CASES["wide experts"]
    shape, cluster = architecture_of(shipped_model(model)), cluster_of(chip, layout.cards)
    serial, both = StepTime(shape, layout, cluster), StepTime(shape, layout, cluster, overlap=True)
    chunks = [(4096, 0)] * 2
    exact = serial.exact([Batch(sequences=2, new=4096)])
    assert both.mixed_s(0, 0, chunks) <= serial.mixed_s(0, 0, chunks)
    assert both.mixed_s(0, 0, chunks) >= max(exact.network, exact.device - exact.network) * 0.99


def test_eager_steps_wait_for_the_host() -> None:
    model = architecture_of(shipped_model("qwen3-8b"))
    cluster = cluster_of("mtt-s5000", 1)
    graphs = StepTime(model, ServingLayout(), cluster).decode_s(1, 64)
    eager = StepTime(model, ServingLayout(graphs=False), cluster).decode_s(1, 64)
    assert eager >= graphs * 0.99


def test_blocks_of_hybrids_as_vllm_aligns_them() -> None:
    """vLLM logs an attention block of 528 tokens for this model at TP 8 with a BF16 convolution state."""
    memory = card_memory(
        shipped_model("qwen3.5-397b-a17b"), ServingLayout(tensor=8), cluster_of("h200").chip,
        utilization=0.9, batched_tokens=8192, sequences=256, block_tokens=16,
    )  # fmt: skip
    assert memory.block_tokens == 528
    assert memory.blocks_per_sequence == 3


def test_cache_of_latent_attention() -> None:
    """61 layers of 576 numbers in BF16: 305,584 tokens in 20 GiB, as vLLM's own log says."""
    memory = card_memory(
        shipped_model("deepseek-v3-671b"), ServingLayout(tensor=16), cluster_of("h200").chip,
        utilization=0.9, batched_tokens=8192, sequences=256, block_tokens=16,
    )  # fmt: skip
    assert memory.token_bytes == 61 * 576 * 2
    assert (20 << 30) // (16 * memory.token_bytes) * 16 == 305_584
    # vLLM's model class built without data holds 159.88 GiB a rank in FP32
    assert memory.weights / 2**30 == pytest.approx(159.88 / 2, rel=0.005)


@pytest.mark.parametrize("chip", ["mtt-s5000", "h20", "h100-sxm", "b200"])
def test_no_step_beats_the_roofline(chip: str) -> None:
    options = DeploymentOptions(precision=Precision.FP8_BLOCK)
    found = deploy(shipped_model("deepseek-v3-671b"), cluster_of(chip, 32), options, 8192)
    for batch, context in ((1, 1000), (32, 4000), (128, 4000), (256, 1000)):
        rate = batch * found.layout.data / found.step.decode_s(batch, batch * context) / found.layout.cards
        assert rate < roofline.decode_tokens_per_s_per_card(found, batch, context)
    rate = 8192 * found.layout.data / found.step.mixed_s(0, 0, [(8192, 0)]) / found.layout.cards
    assert rate < roofline.prefill_tokens_per_s_per_card(found, 8192)


def test_what_does_not_fit_says_how_many_cards() -> None:
    options = DeploymentOptions(precision=Precision.FP8_BLOCK)
    model = shipped_model("deepseek-v3-671b")
    with pytest.raises(AnswerIsNo) as caught:
        deploy(model, cluster_of("mtt-s5000", 8), options, 4096)
    assert caught.value.code == "E651"
    needed = caught.value.values["cards needed"]
    assert isinstance(needed, int)
    assert deploy(model, cluster_of("mtt-s5000", needed), options, 4096).cache_tokens >= 4096
    with pytest.raises(AnswerIsNo):
        deploy(model, cluster_of("mtt-s5000", needed // 2), options, 4096)


def test_layouts_that_do_not_divide() -> None:
    with pytest.raises(WindtunnelError) as caught:
        deploy(shipped_model("qwen3-8b"), cluster_of("h20", 8), DeploymentOptions(tensor_parallel_size=3))
    assert caught.value.code == "E653"


def test_further_cards_are_replicas() -> None:
    found = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 8), DeploymentOptions())
    assert (found.layout.tensor, found.replicas) == (1, 8)
    found = deploy(
        shipped_model("llama3-70b"), cluster_of("h20", 8), DeploymentOptions(tensor_parallel_size=4)
    )
    assert (found.layout.tensor, found.replicas) == (4, 2)


def test_drafts_in_mixed_steps_cost_and_give() -> None:
    """A mixed step with drafts costs more at no acceptance, and less for each token at full acceptance."""

    def step(tokens: int, acceptance: float) -> StepTime:
        options = DeploymentOptions(
            precision=Precision.FP8_BLOCK, speculation=Speculation(tokens=tokens, acceptance=acceptance)
        )
        return deploy(shipped_model("deepseek-v3-671b"), cluster_of("h20", 16), options).step

    plain, useless, perfect = step(0, 0.0), step(1, 0.0), step(1, 1.0)
    chunk = [(512, 0)]
    assert useless.mixed_s(32, 32 * 2048, chunk) > plain.mixed_s(32, 32 * 2048, chunk)
    assert perfect.mixed_s(32, 32 * 2048, chunk) < useless.mixed_s(32, 32 * 2048, chunk)
    # n mixed steps, then decoding what is left, takes as long as it does with the bursts counted
    mixed = useless.mixed_s(32, 32 * 2048, chunk)
    spared = perfect.decode_s(32, 32 * 2048)
    assert perfect.mixed_s(32, 32 * 2048, chunk) == pytest.approx(mixed - spared, rel=1e-6)
    assert perfect.mixed_s(0, 0, chunk) == plain.mixed_s(0, 0, chunk)


def test_drafts_at_ever_new_contexts_are_priced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay asks for thousands of steps, each with a mean context of its own."""
    model, chip, layout = CASES["dense"]
    cluster = cluster_of(chip, layout.cards)
    step = StepTime(
        architecture_of(shipped_model(model)), layout, cluster, Speculation(tokens=1, acceptance=0.8)
    )
    asked: list[int] = []
    price = step.prices.total
    monkeypatch.setattr(step.prices, "total", lambda ops: asked.append(len(ops)) or price(ops))
    for context in range(1000, 1064):
        step.whole_s(20, 20 * context + 1, [(100, 0)])
    first = len(asked)
    for context in range(1064, 1200):
        step.whole_s(20, 20 * context + 1, [(100, 0)])
    assert len(asked) < first + 20

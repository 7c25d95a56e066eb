"""Published serving measurements that can be rebuilt, predicted by the native engine. Nothing is fitted here.

Kept: rows whose model, card, precision, layout and lengths are stated. Refused, with the reason: pipelines but
MLPerf's, production averages of unknown mixes, drafts of unknown acceptance. Limits that the source does not state are
those that ``trtllm-bench`` chooses for its maximum loads (``trtllm_bench.py``), else 2,048 sequences and 8,192 tokens a
step; 95 % of memory. The baseline is dumb on purpose: half of the roofline at the largest batch that fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.results.serving_result import Spread
from windtunnel.serving import roofline
from windtunnel.serving.arrivals import Lengths, drawn
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.expert_load import BALANCED, FORCED, PUBLISHED
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.metrics import latencies
from windtunnel.serving.predict import Load, predict
from windtunnel.serving.request import Request
from windtunnel.serving.router import Router
from windtunnel.serving.run_load import at_client
from windtunnel.serving.simulate import open_loop
from windtunnel.serving.uncertainty import width_of
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.lasting import seconds_of
from windtunnel.validation.mlperf_rows import SCENARIOS, mlperf_run, tokens_per_s_per_card
from windtunnel.validation.model_names import catalogue_name
from windtunnel.validation.shared_prices import with_known_prices
from windtunnel.validation.tables import Table, read_table
from windtunnel.validation.trtllm_bench import as_checkpointed, benchmarked, by_pytorch, without_windows

SEQUENCES_MAX, STEP_TOKENS = 2048, 8192
MONTHS = tuple("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())
ROUNDS = 3
"""Offline loads are simulated for this many batches: what follows goes on at that pace."""


@dataclass(frozen=True, slots=True)
class ServingRow:
    """One figure of one row with its 80 % interval. ``baseline`` may be 0 (none)."""

    row: str
    kind: str
    what: str
    measured: float
    predicted: float
    baseline: float
    low: float
    high: float


def published(file: Path, model: str) -> Iterator[tuple[str, ServingRow]]:
    """Rows of a table whose model's name holds ``model`` and that can be rebuilt, each with words for what ran."""
    for record in _records(read_table(file)):
        if model not in record["model"]:
            continue
        try:
            row = _one(record)[0]
        except (WindtunnelError, ValueError):
            continue
        even = ", even routing" if "balanced routing" in record["notes"] + record["framework"] else ""
        who, cards = record["framework"].split()[0], int(_number(record, "num_gpus"))
        what, prompt = record["phase"].split(",")[0], _number(record, "input_tokens")
        yield f"{who}, {cards} × {record['gpu'].split()[0]}, {what}, {prompt:,.0f} tokens{even}", row


def _records(table: Table) -> Iterator[dict[str, str]]:
    columns = {name: table.text(name).tolist() for name in table.columns}
    for index in range(len(table)):
        yield {name: str(values[index]) for name, values in columns.items()}


def _number(record: dict[str, str], name: str) -> float:
    text = record.get(name, "")
    return float(text) if text not in ("", "nan") else 0.0


def _one(record: dict[str, str]) -> list[ServingRow]:
    phase = record["phase"]
    if is_mlperf(record):
        return _mlperf(record)
    if "production" in phase or "end to end" in phase or "MTP with" in record["notes"]:
        raise ValueError("mix of lengths or acceptance not stated")
    if "maximum load" in phase or "static batch" in phase:
        return _offline(record)
    if "fixed concurrency" in phase:
        return _concurrent(record)
    return _steps(record)


def is_mlperf(record: dict[str, str]) -> bool:
    """Whether a row is of MLPerf's logs."""
    return record.get("phase", "").lower() in SCENARIOS


def _mlperf(record: dict[str, str]) -> list[ServingRow]:
    chip = chip_name(record["gpu"])
    if chip is None:
        raise ValueError(f"accelerator `{record['gpu']}` is not in the catalogue")
    run = mlperf_run(record, chip)
    found, of = run.deployment, run.benchmark
    rate = tokens_per_s_per_card(run)
    batch = _batch(found, of.prompt, of.output)
    width = width_of(found, Batch(sequences=batch, context=of.prompt + of.output // 2))
    ends = width.widened(len(run.assumed)).rate(rate)
    base = half_roofline(found, of.prompt, of.output, batch)
    kind = "offline, maximum load" if run.limits is None else f"{record['phase'].lower()} scenario"
    measured = _number(record, "output_tokens_per_s_per_gpu")
    return [ServingRow(record["row_id"], kind, "tokens/s/card", measured, rate, base, ends.low, ends.high)]


def _offline(record: dict[str, str]) -> list[ServingRow]:
    measured = _number(record, "output_tokens_per_s_per_gpu")
    if not measured:
        raise ValueError("no output throughput")
    static = "static" in record["phase"]
    found = _deployment(record)
    prompt, output = int(_number(record, "input_tokens")), int(_number(record, "output_tokens"))
    batch = _batch(found, prompt, output)
    simulated = batch * ROUNDS * found.layout.data + 1
    asked = int(_number(record, "concurrency_or_batch" if static else "num_requests"))
    count = -(-asked // found.replicas) or simulated  # of one replica: they do not talk to each other
    requests = drawn(count if static else min(count, simulated), Lengths(prompt=prompt, output=output))
    served = open_loop(requests, Router(replace(found, replicas=1).start()))
    predicted = count * output / seconds_of(count, served) / found.layout.cards
    width = width_of(found, Batch(sequences=_at_once(found, count, batch), context=prompt + output // 2))
    rate = width.rate(predicted)
    kind = "offline, static batch" if static else "offline, maximum load"
    baseline = half_roofline(found, prompt, output, min(batch * found.layout.data, count))
    name = record["row_id"]
    return [ServingRow(name, kind, "tokens/s/card", measured, predicted, baseline, rate.low, rate.high)]


def _concurrent(record: dict[str, str]) -> list[ServingRow]:
    found = _deployment(record)
    prompt, output = int(_number(record, "input_tokens")), int(_number(record, "output_tokens"))
    clients = int(_number(record, "concurrency_or_batch"))
    requests = tuple(drawn(max(20, 3 * clients), Lengths(prompt=prompt, output=output)))
    result = predict(found, Load(requests=requests, words="closed", concurrency=clients))
    kind, name = "fixed concurrency", record["row_id"]
    rate = result.decode_tokens_per_s_per_gpu
    batch = min(clients, _batch(found, prompt, output))
    base = half_roofline(found, prompt, output, batch)
    rows = [
        ServingRow(
            name, kind, "tokens/s/card", _number(record, "output_tokens_per_s_per_gpu"), rate.value, base,
            rate.low, rate.high,
        )
    ]  # fmt: skip
    tpot = _number(record, "tpot_seconds")
    if tpot:
        rows.append(
            ServingRow(
                name,
                kind,
                "TPOT s",
                tpot,
                result.tpot_s.mean,
                batch / base / found.layout.cards,
                result.tpot_s.mean * rate.value / rate.high,
                result.tpot_s.mean * rate.value / rate.low,
            )
        )
    return rows


def _online(record: dict[str, str]) -> list[ServingRow]:
    found = _deployment(record, prompt="mean_input_tokens")
    lengths = Lengths(
        prompt=int(_number(record, "mean_input_tokens")), output=int(_number(record, "mean_output_tokens"))
    )
    rate = _number(record, "offered_requests_per_s")
    if not 0 < rate < 1e6:
        rate = 0.0
    requests = tuple(drawn(int(_number(record, "num_requests") or 500), lengths, rate=rate))
    result = predict(found, Load(requests=requests, words="open"))
    name = record["row_id"]
    gap = half_roofline(found, lengths.prompt, lengths.output, 1)
    width = width_of(found, Batch(sequences=max(1, round(result.mean_batch)), context=lengths.prompt))
    early = _latencies(found, requests, width.low)
    late = _latencies(found, requests, width.high)
    rows = [
        ServingRow(
            name, "online", "ITL s", _number(record, "mean_inter_token_latency_seconds"), result.itl_s.mean,
            1 / gap / found.layout.cards, early["itl"].mean, late["itl"].mean,
        )
    ]  # fmt: skip
    prefill = 0.5 * roofline.prefill_tokens_per_s_per_card(found, lengths.prompt) * found.layout.cards
    rows.append(
        ServingRow(
            name, "online", "TTFT s", _number(record, "mean_ttft_seconds"), result.ttft_s.mean,
            lengths.prompt / prefill, early["ttft"].mean, late["ttft"].mean,
        )
    )  # fmt: skip
    return rows


def _steps(record: dict[str, str]) -> list[ServingRow]:
    """One step alone: prompts of a pass, or a decode batch at its mean context."""
    found = _deployment(record)
    prompt, output = int(_number(record, "input_tokens")), int(_number(record, "output_tokens"))
    batch = int(_number(record, "concurrency_or_batch"))
    layout, name = found.layout, record["row_id"]
    if "prefill" in record["phase"]:
        seconds = found.step.mixed_s(0, 0, [(prompt, 0)] * batch)
        rate = prompt * batch * layout.data / seconds / layout.cards
        base = 0.5 * roofline.prefill_tokens_per_s_per_card(found, prompt)
        measured = _number(record, "input_tokens_per_s_per_gpu")
        ends = width_of(found, Batch(sequences=batch, new=prompt)).rate(rate)
        return [ServingRow(name, "prefill pass", "tokens/s/card", measured, rate, base, ends.low, ends.high)]
    context = prompt + output // 2
    seconds = found.step.decode_s(batch, batch * context)
    rate = batch * layout.data / seconds / layout.cards
    base = 0.5 * roofline.decode_tokens_per_s_per_card(found, batch, context)
    measured = _number(record, "output_tokens_per_s_per_gpu")
    ends = width_of(found, Batch(sequences=batch, context=context)).rate(rate)
    return [ServingRow(name, "decode step", "tokens/s/card", measured, rate, base, ends.low, ends.high)]


def typical_step(record: dict[str, str], *, online: bool) -> tuple[Deployment, Batch, tuple[str, ...]]:
    """The step that a row spends its time in, and what the row does not state: for explanations."""
    if is_mlperf(record):
        run = mlperf_run(record, chip_name(record["gpu"]) or "")
        of = run.benchmark
        batch = _batch(run.deployment, of.prompt, of.output)
        return run.deployment, Batch(sequences=batch, context=of.prompt + of.output // 2), run.assumed
    found = _deployment(record, prompt="mean_input_tokens" if online else "input_tokens")
    limits = found.options
    words = (f"{limits.max_num_seqs:,} sequences, {limits.max_num_batched_tokens:,} tokens a step at most",)
    prefix = "mean_" if online else ""
    prompt, output = (int(_number(record, f"{prefix}{name}_tokens")) for name in ("input", "output"))
    asked = int(_number(record, "concurrency_or_batch"))
    if not online and "prefill" in record["phase"]:
        return found, Batch(sequences=max(1, asked), new=prompt), words
    held = _batch(found, prompt, output)
    sequences = min(asked, held) if asked else 1 if online else held
    return found, Batch(sequences=max(1, sequences), context=prompt + output // 2), words


def _latencies(found: Deployment, requests: Sequence[Request], factor: float) -> dict[str, Spread]:
    """Latencies if every step took ``factor`` times as long: queues grow or vanish with it."""
    replicas = replace(found, slower=factor).start()
    return latencies([at_client(one) for one in open_loop(requests, Router(replicas))], replicas)


def _deployment(record: dict[str, str], prompt: str = "input_tokens") -> Deployment:
    model, chip = catalogue_name(record["model"]), chip_name(record["gpu"])
    if model is None or chip is None:
        raise ValueError("model not in the catalogue" if model is None else "card not in the catalogue")
    if _number(record, "pipeline_parallel") > 1:
        raise ValueError("pipeline parallel")
    text, stack = record["precision"], _stack(record["framework"])
    wide = int(_number(record, "data_parallel_attention") or 1)
    overlapped = "two-batch overlap" in record["framework"] or "in-house" in record["framework"]
    precision = Precision.BF16
    if "FP4" in text:
        precision = Precision.NVFP4
    elif "FP8" in text:
        precision = Precision.FP8_BLOCK if _in_blocks(record["model"], stack) else Precision.FP8
    elif "FP16" in text:
        precision = Precision.FP16
    # TensorRT-LLM's published FP8 and FP4 engines and checkpoints keep an FP8 cache (its build and bench guides)
    small_cache = (
        "FP8 KV" in text or "KV cache" in text or (stack is Stack.TRTLLM and ("FP8" in text or "FP4" in text))
    )
    tensor = int(_number(record, "tensor_parallel") or 1)
    options = DeploymentOptions(
        tensor_parallel_size=tensor, data_parallel_size=wide, precision=precision,
        kv_cache_dtype="float8_e4m3fn" if small_cache else "bfloat16", gpu_memory_utilization=0.95,
        max_num_seqs=SEQUENCES_MAX, max_num_batched_tokens=STEP_TOKENS, enable_prefix_caching=False,
        enable_dbo=overlapped,
        stack=stack,
        deepep=_month(record["framework"]),
        expert_load=_routing(record, int(_number(record, prompt))),
        num_redundant_experts=_redundant(record["notes"]),
        built_engine=stack is Stack.TRTLLM and "PyTorch" not in record["framework"],
    )  # fmt: skip
    cluster = cluster_of(chip, int(_number(record, "num_gpus") or tensor * wide))
    shipped, longest = shipped_model(model), int(_number(record, prompt)) + 1
    if stack is Stack.TRTLLM and "C++" in record["framework"]:
        shipped = without_windows(shipped)
    options = as_checkpointed(shipped, cluster.chip, options)
    if stack is Stack.TRTLLM and "PyTorch" in record["framework"]:
        options = by_pytorch(shipped, options)
    if stack is Stack.TRTLLM and "maximum load" in record.get("phase", ""):
        lengths = (int(_number(record, f"{name}_tokens")) for name in ("input", "output"))
        options = benchmarked(shipped, cluster.chip, options, *lengths)
    return with_known_prices(deploy(shipped, cluster, options, longest))


def _in_blocks(model: str, stack: Stack) -> bool:
    """Whether an FP8 checkpoint has one scale for a block of 128 x 128 weights: DeepSeek's do, and Qwen's own, which
    TensorRT-LLM's tables replace by NVIDIA's (one scale a tensor).
    """
    return "DeepSeek" in model or ("Qwen" in model and stack is not Stack.TRTLLM)


def _routing(record: dict[str, str], prompt: int) -> str:
    """Even where forced, as published where a row says that the imbalance was the model's own, else by chance."""
    if "balanced routing" in record["notes"] + record["framework"]:
        return FORCED
    return f"{PUBLISHED}:{prompt}" if "measured expert imbalance" in record["notes"] else BALANCED


def _redundant(notes: str) -> int:
    found = re.search(r"(\d+) redundant experts", notes)
    return int(found[1]) if found else 0


def _stack(framework: str) -> Stack:
    """Whose kernels and rules; DeepSeek's in-house stack runs those that SGLang took over, in the same stages."""
    words = framework.lower()
    if "trt" in words or "tensorrt" in words or "nim" in words:
        return Stack.TRTLLM
    return Stack.SGLANG if "sglang" in words or "deepseek in-house" in words else Stack.VLLM


def _month(framework: str) -> str:
    """ISO month that a stack is said to be of; empty where it is not."""
    found = re.search(r"\(([A-Z][a-z]{2}) (20\d\d)\)", framework)
    if found is None or found[1] not in MONTHS:
        return ""
    return f"{found[2]}-{MONTHS.index(found[1]) + 1:02}"


def _at_once(found: Deployment, count: int, held: int) -> int:
    """Sequences of a rank that run together."""
    return max(1, min(held, count // found.layout.data))


def _batch(found: Deployment, prompt: int, output: int) -> int:
    """Sequences that the cache holds at their mean length."""
    return max(1, min(found.options.max_num_seqs, int(found.cache_tokens / (prompt + output / 2))))


def half_roofline(found: Deployment, prompt: int, output: int, batch: int) -> float:
    """Half of the roofline: prompts and outputs one after the other."""
    layout = found.layout
    decode = 0.5 * roofline.decode_tokens_per_s_per_card(found, batch / layout.data, prompt + output / 2)
    prefill = 0.5 * roofline.prefill_tokens_per_s_per_card(found, prompt)
    return 1 / (1 / decode + prompt / output / prefill)

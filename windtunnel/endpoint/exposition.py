"""/metrics in Prometheus' text format, under vLLM's names, so that existing dashboards read it."""

from __future__ import annotations

from collections.abc import Mapping

from windtunnel.endpoint.counters import Histogram
from windtunnel.endpoint.live import LiveEngine


def text(engine: LiveEngine, model: str) -> str:
    """All series at this moment."""
    counters = engine.counters
    ranks = [rank for replica in engine.replicas for rank in replica.ranks]
    used = sum(rank.pool.used for rank in ranks) / sum(rank.pool.capacity for rank in ranks)
    label = f'model_name="{_escaped(model)}",engine="0"'
    gauges = {
        "num_requests_running": engine.running,
        "num_requests_waiting": engine.waiting,
        "kv_cache_usage_perc": used,
    }
    totals = {
        "prefix_cache_queries": sum(rank.queries for rank in ranks),
        "prefix_cache_hits": sum(rank.hits for rank in ranks),
        "num_preemptions": sum(rank.preempted for rank in ranks),
        "prompt_tokens": counters.prompt_tokens,
        "prompt_tokens_cached": counters.cached_tokens,
        "generation_tokens": counters.generation_tokens,
    }
    sources = {
        "local_compute": counters.prompt_tokens - counters.cached_tokens,
        "local_cache_hit": counters.cached_tokens,
        "external_kv_transfer": 0,
    }
    lines = []
    for name, value in gauges.items():
        lines += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{{{label}}} {value:g}"]
    for name, total in totals.items():
        lines += [f"# TYPE vllm:{name}_total counter", f"vllm:{name}_total{{{label}}} {total}"]
    waiting = {"capacity": engine.waiting, "deferred": 0}
    lines += _by("num_requests_waiting_by_reason", "gauge", label, "reason", waiting)
    lines += _by("prompt_tokens_by_source_total", "counter", label, "source", sources)
    lines += _by("request_success_total", "counter", label, "finished_reason", counters.finished)
    refused = {"max_num_queued_reqs": counters.rejected, "max_num_queued_tokens": 0}
    lines += _by(
        "admission_rejections_total", "counter", f'model_name="{_escaped(model)}"', "reason", refused
    )
    lines.append("# TYPE windtunnel:requests_cancelled_total counter")
    lines.append(f"windtunnel:requests_cancelled_total{{{label}}} {counters.cancelled}")
    for name, histogram in counters.histograms.items():
        lines += _histogram(name, histogram, label)
    memory = engine.deployment.memory
    about = f'block_size="{memory.block_tokens}",num_gpu_blocks="{ranks[0].pool.capacity}"'
    lines += ["# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{label},{about}}} 1"]
    return "\n".join(lines) + "\n"


def _by(name: str, kind: str, label: str, key: str, values: Mapping[str, int]) -> list[str]:
    series = [f'vllm:{name}{{{label},{key}="{of}"}} {value}' for of, value in values.items()]
    return [f"# TYPE vllm:{name} {kind}", *series]


def _histogram(name: str, histogram: Histogram, label: str) -> list[str]:
    lines, so_far = [f"# TYPE vllm:{name} histogram"], 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        so_far += count
        le = "+Inf" if bound == float("inf") else repr(bound)
        lines.append(f'vllm:{name}_bucket{{{label},le="{le}"}} {so_far}')
    lines.append(f"vllm:{name}_sum{{{label}}} {histogram.total:.9g}")
    return [*lines, f"vllm:{name}_count{{{label}}} {so_far}"]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

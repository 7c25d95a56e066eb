"""/metrics in Prometheus' text format, under vLLM's names, so that existing dashboards read it."""

from __future__ import annotations

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
        "admission_rejections": counters.rejected,
    }
    lines = []
    for name, value in gauges.items():
        lines += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{{{label}}} {value:g}"]
    for name, total in totals.items():
        lines += [f"# TYPE vllm:{name}_total counter", f"vllm:{name}_total{{{label}}} {total}"]
    lines.append("# TYPE vllm:request_success_total counter")
    finished = counters.finished | {"abort": counters.cancelled}
    for reason, total in finished.items():
        lines.append(f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {total}')
    for name, histogram in counters.histograms.items():
        lines += _histogram(name, histogram, label)
    memory = engine.deployment.memory
    about = f'block_size="{memory.block_tokens}",num_gpu_blocks="{ranks[0].pool.capacity}"'
    lines += ["# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{label},{about}}} 1"]
    return "\n".join(lines) + "\n"


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

"""/metrics in Prometheus' text format, under vLLM's names, so that existing dashboards read it."""

from __future__ import annotations

from windtunnel.endpoint.live import LiveEngine


def text(engine: LiveEngine, model: str) -> str:
    """All series at this moment."""
    counters = engine.counters
    ranks = [rank for replica in engine.replicas for rank in replica.ranks]
    used = sum(rank.pool.used for rank in ranks) / sum(rank.pool.capacity for rank in ranks)
    label = f'{{model_name="{_escaped(model)}"}}'
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
        "generation_tokens": counters.generation_tokens,
        "request_success": counters.finished,
        "admission_rejections": counters.rejected,
    }
    sums = {
        "time_to_first_token_seconds": (counters.ttft_sum_s, counters.ttft_count),
        "e2e_request_latency_seconds": (counters.e2e_sum_s, counters.finished),
    }
    lines = []
    for name, value in gauges.items():
        lines += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{label} {value:g}"]
    for name, total in totals.items():
        lines += [f"# TYPE vllm:{name}_total counter", f"vllm:{name}_total{label} {total}"]
    for name, (whole, count) in sums.items():
        lines += [
            f"# TYPE vllm:{name} summary",
            f"vllm:{name}_sum{label} {whole:.9g}",
            f"vllm:{name}_count{label} {count}",
        ]
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

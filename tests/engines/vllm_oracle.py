"""Drives vLLM's own Scheduler in virtual time and prints what it decided, as JSON, for golden tests.

Runs in an environment of its own (see run.sh), without a GPU: only the scheduler and its cache
manager are built. Input on stdin: {"options": {...}, "requests": [[arrival_s, prompt, output, keys], ...],
"key_tokens": n, "fixed_s": s, "token_s": s}. Output: one entry a step, [tokens by request], and the times of
every request.
"""

# ruff: noqa: E402  (a stand-in comes before vLLM)
from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path

os.environ.update(
    VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", WINDTUNNEL_ON="mtt-s5000"
)  # with our platform vLLM and the processes that it starts need no card

import torch

from windtunnel.endpoint.vllm import stand_ins
from windtunnel.serving.acceptance import accepted

stand_ins.install()  # importing vLLM must work without a card
from vllm import SamplingParams
from vllm.config import (
    CacheConfig,
    KVTransferConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    SpeculativeConfig,
    VllmConfig,
)
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    MambaSpec,
    MLAAttentionSpec,
)
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from tests.engines.cases import digest
from tests.engines.vllm_offload_worker import VirtualWorker

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 512, "vocab_size": 1024,
    "max_position_embeddings": 131072, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5,
}  # fmt: skip


DEEPSEEK = {
    **LLAMA, "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_nextn_predict_layers": 1,
    "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "kv_lora_rank": 64, "q_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "moe_layer_freq": 1, "norm_topk_prob": True,
    "scoring_func": "sigmoid", "topk_method": "noaux_tc", "routed_scaling_factor": 2.5,
}  # fmt: skip
"""The smallest model with a drafting layer that vLLM knows: MTP is refused without one."""


def scheduler(options: dict[str, int | bool]) -> Scheduler:
    folder = Path(tempfile.mkdtemp())
    drafts = options.get("num_speculative_tokens", 0)
    (folder / "config.json").write_text(json.dumps(DEEPSEEK if drafts else LLAMA))
    model = ModelConfig(model=str(folder), skip_tokenizer_init=True, dtype="bfloat16", max_model_len=131072)
    ahead = bool(options.get("async_scheduling"))
    block = options["block_size"]
    cache = CacheConfig(
        block_size=block, gpu_memory_utilization=0.9, enable_prefix_caching=options["enable_prefix_caching"]
    )
    blocks = options["num_gpu_blocks"] + 1  # one is the null block
    cache.num_gpu_blocks = blocks
    states = options.get("state_groups", 0)
    if states:
        cache.mamba_cache_mode = "align" if options["enable_prefix_caching"] else "none"
        if options["enable_prefix_caching"]:
            cache.mamba_block_size = block
    config = VllmConfig(
        model_config=model,
        cache_config=cache,
        kv_transfer_config=offloading(options, block) if options.get("host_blocks") else None,
        speculative_config=SpeculativeConfig(
            method="mtp",
            num_speculative_tokens=drafts,
            target_model_config=model,
            target_parallel_config=ParallelConfig(),
        )
        if drafts
        else None,
        scheduler_config=SchedulerConfig(
            max_num_seqs=options["max_num_seqs"],
            max_num_batched_tokens=options["max_num_batched_tokens"],
            max_model_len=131072,
            enable_chunked_prefill=True,
            is_encoder_decoder=False,
            async_scheduling=ahead,
        ),
    )
    if options.get("latent"):
        spec = MLAAttentionSpec(block_size=block, num_kv_heads=1, head_size=576, dtype=torch.bfloat16)
    else:
        spec = FullAttentionSpec(block_size=block, num_kv_heads=1, head_size=64, dtype=torch.bfloat16)
    groups = [KVCacheGroupSpec(["layer"], spec)]
    for number in range(states):
        state = MambaSpec(
            block_size=cache.mamba_block_size or model.max_model_len,
            shapes=((2, 8), (4, 8, 8)),
            dtypes=(torch.bfloat16, torch.float32),
            page_size_padded=spec.page_size_bytes,
            mamba_cache_mode=cache.mamba_cache_mode,
            num_speculative_blocks=drafts,
        )
        groups.append(KVCacheGroupSpec([f"state {number}"], state))
    return (AsyncScheduler if ahead else Scheduler)(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=groups),
        structured_output_manager=StructuredOutputManager(config),
        block_size=max(group.kv_cache_spec.block_size for group in groups),
        hash_block_size=block,
        log_stats=False,
    )


def offloading(options: dict, block: int) -> KVTransferConfig:
    """What ``--kv-offloading-size`` comes to, for ``host_blocks`` blocks."""
    page = block * (576 if options.get("latent") else 2 * 64) * 2
    size = options["host_blocks"] * (-(-page // 4096) * 4096)
    return KVTransferConfig(
        kv_connector="OffloadingConnector",
        kv_role="kv_both",
        kv_connector_extra_config={"cpu_bytes_to_use": size},
    )


def build(number: int, row: list, key_tokens: int, block: int, lookahead: int) -> Request:
    """A request; ``lookahead``: tokens after a block that its hash covers."""
    arrival, prompt, output, keys = row
    request = Request(
        request_id=str(number),
        prompt_token_ids=[7] * prompt,
        sampling_params=SamplingParams(max_tokens=output, ignore_eos=True, detokenize=False),
        pooling_params=None,
        arrival_time=arrival,
        block_hasher=None,
    )

    def hashes(asked: Request | None = None) -> list[bytes]:
        have, full, out = len(request.block_hashes), (request.num_tokens - lookahead) // block, []
        for index in range(have, full):
            last = (index + 1) * block - 1 + lookahead
            if keys and last < prompt:
                first = keys[last // key_tokens]
                out.append(struct.pack(">QQ", first, index).ljust(32, b"\0"))
            else:
                out.append(f"{number}:{index}".encode().ljust(32, b"\0"))
        return out

    request._block_hasher = hashes
    request.block_hashes = hashes()
    return request


def kept(made: SchedulerOutput, name: str, checks: Counter, options: dict) -> int:
    """How many drafts of a request this step accepts; what stands in for drafts of a newcomer is rejected."""
    drafts = made.scheduled_spec_decode_tokens.get(name, ())
    came = {new.req_id for new in made.scheduled_new_reqs} | made.scheduled_cached_reqs.resumed_req_ids
    if not drafts or name in came:
        return 0
    checks[name] += 1
    return accepted(int(name), checks[name] - 1, len(drafts), options["acceptance"])


def replay(case: dict) -> dict:
    """Steps and times; batches queue as in ``EngineCore.step`` and ``step_with_batch_queue``."""
    options, rows = case["options"], case["requests"]
    engine = scheduler(options)
    most = 2 if options.get("async_scheduling") else 1
    now, free_at, place, steps = 0.0, 0.0, 0, []
    worker = VirtualWorker(engine, options["host_block_s"]) if options.get("host_blocks") else None
    first, finished = {}, {}
    checks: Counter = Counter()
    began_s = time.process_time()
    queue: deque = deque()
    while place < len(rows) or engine.has_requests() or queue:
        while place < len(rows) and rows[place][0] <= now:
            engine.add_request(
                build(
                    place,
                    rows[place],
                    case["key_tokens"],
                    options["block_size"],
                    getattr(engine, "num_hash_lookahead_tokens", 0),  # since 0.33
                )
            )
            place += 1
        if not (engine.has_requests() if worker else engine.get_num_unfinished_requests()) and not queue:
            engine.finished_req_ids = set()
            if place >= len(rows):
                break
            now = max(now, rows[place][0])
            continue
        if engine.has_requests():
            made = engine.schedule()
            tokens = made.num_scheduled_tokens
            told = None
            seconds = case["fixed_s"] + case["token_s"] * made.total_num_scheduled_tokens if tokens else 0.0
            if worker:
                end, told = worker.launch(made, now, free_at, seconds)
            else:
                end = max(now, free_at) + seconds
            if tokens:
                free_at = end
                steps.append(sorted((int(name), count) for name, count in tokens.items()))
            sampled = [
                []
                if engine.requests[name].is_prefill_chunk
                else [11] * (1 + kept(made, name, checks, options))
                for name in tokens
            ]
            queue.append((made, sampled, end if tokens else now, told))
            if len(queue) < most and (tokens or engine.has_requests()):
                continue
        made, sampled, ends_at, told = queue.popleft()
        now = max(now, ends_at)
        tokens = made.num_scheduled_tokens
        for name, told_tokens in zip(tokens, sampled, strict=True):
            if told_tokens:
                first.setdefault(name, now)
        answer = ModelRunnerOutput(
            req_ids=list(tokens),
            req_id_to_index={name: index for index, name in enumerate(tokens)},
            sampled_token_ids=sampled,
            kv_connector_output=told,
        )
        for outputs in engine.update_from_output(made, answer).values():
            for output in outputs.outputs:
                if output.finished:
                    finished[output.request_id] = now
        if options.get("num_speculative_tokens") and most == 1 and tokens:
            names = list(tokens)
            drafts = [[11] * options["num_speculative_tokens"] for _ in names]
            engine.update_draft_token_ids(DraftTokenIds(names, drafts))
        steps_left = [(made, told), *((entry[0], entry[3]) for entry in queue)]
        if worker and not any(m.num_scheduled_tokens or t.kv_connector_worker_meta for m, t in steps_left):
            arrival = rows[place][0] if place < len(rows) else float("inf")
            now = max(now, min(worker.next_s, arrival))  # the engine looks again and again until then
    spent_s = time.process_time() - began_s
    times = [[first[str(number)], finished[str(number)]] for number in range(len(rows))]
    found = {"name": case["name"], "steps": steps, "times": times}
    if case.get("timed"):
        found["spent_s"] = spent_s
    if worker:
        found |= {**worker.counts, "moves": digest([worker.events])}
    return found


if __name__ == "__main__":
    json.dump([replay(case) for case in json.load(sys.stdin)], sys.stdout)

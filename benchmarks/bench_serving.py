"""Processor seconds to replay an hour of traffic on one core, with real kernel times.

The traffic is the file that ``WINDTUNNEL_TRACE`` names (Mooncake's conversation trace: 12,031 requests in an
hour), else 12,000 drawn requests of conversations that share prefixes. The deployment keeps up with it. Where
``WINDTUNNEL_DYNAMO`` names a Python with ai-dynamo-runtime 1.6.1, its offline replay of the same trace, with as many
workers, blocks and places, is timed beside it; where ``WINDTUNNEL_VLLM`` names one with vLLM (``make test-engines``
makes it), its own scheduler on the first 400 requests of the trace and one step function, and our engine on the same.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.engine import Replica
from windtunnel.serving.predict import Load, predict
from windtunnel.serving.request import Request, with_spans
from windtunnel.serving.router import Router
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.simulate import open_loop
from windtunnel.serving.trace_readers import read_trace
from windtunnel.serving.vllm_scheduler import VllmScheduler
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

HOUR_S = 3600.0
REAL_TIME = 3000.0


def drawn_conversations(count: int, seconds: float) -> tuple[Request, ...]:
    """Turns of conversations: each goes on from one before it, in blocks of 512 tokens."""
    draw = random.Random(0)
    known: list[tuple[int, ...]] = [()]
    requests, fresh = [], 1
    for number in range(count):
        past = draw.choice(known[-2000:])
        more = 1 + int(draw.expovariate(1 / 8))
        keys = (past + tuple(range(fresh, fresh + more)))[:200]
        fresh += more
        known.append(keys)
        prompt = 512 * len(keys) - draw.randint(0, 511)
        at = seconds * number / count
        requests.append(Request(number, at, prompt, 1 + int(draw.expovariate(1 / 340)), keys, 512))
    return tuple(requests)


DYNAMO = """
import sys, time
from dynamo._core import run_mocker_trace_replay
engine = {"block_size": 64, "num_gpu_blocks": int(sys.argv[2]), "max_num_seqs": 256, "max_num_batched_tokens": 8192}
best = 1e9
for _ in range(3):
    begin = time.process_time()
    run_mocker_trace_replay([sys.argv[1]], extra_engine_args={"engine": engine}, num_workers=8, trace_block_size=512)
    best = min(best, time.process_time() - begin)
print(best)
"""


def dynamo_s(path: str, blocks: int) -> float:
    """Processor seconds of Dynamo's replay, reading the file included."""
    python = os.environ["WINDTUNNEL_DYNAMO"]
    done = subprocess.run(
        [python, "-c", DYNAMO, path, str(blocks)], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


FIRST = 400
OPTIONS = {
    "block_size": 16, "num_gpu_blocks": 40_000, "max_num_seqs": 256, "max_num_batched_tokens": 8192,
    "enable_prefix_caching": True, "async_scheduling": True,
}  # fmt: skip


class Straight:
    """A step function that two schedulers can share: a base and a slope over all tokens of a step."""

    fixed_s, token_s = 2**-6, 2**-16

    def decode_s(self, decodes: int, contexts: int) -> float:
        """See ``StepSeconds``, as are all of these."""
        return self.fixed_s + self.token_s * decodes

    def decode_line(self, decodes: int, contexts: int) -> tuple[float, float, int]:
        return self.decode_s(decodes, contexts), 0.0, 1 << 40

    def mixed_s(self, decodes: int, contexts: int, chunks: Sequence[tuple[int, int]]) -> float:
        return self.fixed_s + self.token_s * (decodes + sum(new for new, _ in chunks))

    whole_s = mixed_s

    def images_s(self, request: Request, first: int, end: int) -> float:
        return 0.0

    def experts_s(self, tokens: float) -> float:
        """See ``StepSeconds``."""
        return 0.0


def beside_vllm(requests: Sequence[Request]) -> None:
    """Both schedulers on the same requests: times real time, and whether they decided alike."""
    rows = [[r.arrival_s, r.prompt_tokens, r.output_tokens, list(r.keys)] for r in requests]
    case = {
        "name": "timed", "timed": True, "options": OPTIONS, "requests": rows, "key_tokens": requests[0].key_tokens,
        "fixed_s": Straight.fixed_s, "token_s": Straight.token_s,
    }  # fmt: skip
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [os.environ["WINDTUNNEL_VLLM"], str(root / "tests/engines/vllm_oracle.py")], input=json.dumps([case]),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    (theirs,) = json.loads(done.stdout.splitlines()[-1])
    best = float("inf")
    for _ in range(3):
        replica = Replica([VllmScheduler(SchedulerOptions(**OPTIONS))], Straight())  # type: ignore[arg-type]
        begin = time.process_time()
        served = open_loop(with_spans(requests), Router([replica]))
        best = min(best, time.process_time() - begin)
    last_s = max(one.finished_s for one in served)
    apart = max(abs(one.finished_s - end) for one, (_, end) in zip(served, theirs["times"], strict=True))
    same = replica.steps == len(theirs["steps"]) and apart < 1e-6
    print(
        f"{replica.steps:,} steps, vLLM {len(theirs['steps']):,}; {'alike' if same else f'{apart:.3g} s apart'}"
    )
    print(f"{last_s / best:,.0f} × real time, vLLM's own scheduler {last_s / theirs['spent_s']:,.0f} ×")
    name = f"our scheduler ÷ vLLM's, processor time, {len(rows)} requests"
    print(json.dumps({"name": name, "value": best / theirs["spent_s"], "unit": "", "target": 0.02}))


def main() -> None:
    path = os.environ.get("WINDTUNNEL_TRACE")
    requests = read_trace(Path(path)).requests if path else drawn_conversations(12_000, 3500.0)
    name = Path(path).name if path else "drawn conversations"
    found = deploy(
        shipped_model("llama3-70b"), cluster_of("mtt-s5000", 64), DeploymentOptions(tensor_parallel_size=8)
    )
    load = Load(requests=requests, words=name)
    predict(found, load)  # prices kernels
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        result = predict(found, load)
        best = min(best, (time.process_time() - begin) / result.duration_s * HOUR_S)
    print(
        json.dumps(
            {
                "name": f"replay of an hour, {result.requests:,} requests, {name}"[:58],
                "value": best,
                "unit": "s",
                "target": HOUR_S / REAL_TIME,
            }
        )
    )
    if path and os.environ.get("WINDTUNNEL_DYNAMO"):
        begin = time.process_time()
        read_trace(Path(path))
        reading = time.process_time() - begin
        other = dynamo_s(path, found.cache_tokens // 64)
        name = "our replay with reading ÷ Dynamo's, processor time"
        print(json.dumps({"name": name, "value": (best + reading) / other, "unit": "", "target": 1.0}))
    if path and os.environ.get("WINDTUNNEL_VLLM"):
        beside_vllm(requests[:FIRST])


if __name__ == "__main__":
    main()

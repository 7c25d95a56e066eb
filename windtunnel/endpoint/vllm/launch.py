"""`windtunnel serve --engine vllm`: a model folder, vLLM's options for the deployment, and `vllm serve`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from windtunnel.endpoint.vllm import folder
from windtunnel.endpoint.vllm.settings import Settings
from windtunnel.errors import WindtunnelError
from windtunnel.serving.deployment import Deployment

QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": "windtunnel"}
MIDDLEWARE = "windtunnel.endpoint.vllm.middleware.Policy"


def command(
    deployment: Deployment, model_folder: Path, *, names: Sequence[str], host: str, port: int,
    longest: int, more: Sequence[str] = (),
) -> list[str]:  # fmt: skip
    """`vllm serve` for the deployment: the same layout, batching and cache options, without weights."""
    options, layout = deployment.options, deployment.layout
    words = [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model_folder),
        "--served-model-name", *names,
        "--host", host, "--port", str(port),
        "--load-format", "dummy",
        "--max-model-len", str(longest),
        "--tensor-parallel-size", str(layout.tensor),
        "--data-parallel-size", str(layout.data),
        "--max-num-seqs", str(options.max_num_seqs),
        "--max-num-batched-tokens", str(options.max_num_batched_tokens),
        "--gpu-memory-utilization", str(options.gpu_memory_utilization),
        "--kv-cache-dtype", "fp8" if options.kv_cache_dtype.startswith("float8") else "auto",
        "--middleware", MIDDLEWARE,
        "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
        "--enable-prompt-tokens-details",
    ]  # fmt: skip
    prefix = "" if options.enable_prefix_caching else "no-"
    words.append(f"--{prefix}enable-prefix-caching")
    if layout.expert > 1:
        words.append("--enable-expert-parallel")
    if options.enforce_eager:
        words.append("--enforce-eager")
    if options.block_size:
        words += ["--block-size", str(options.block_size)]
    if options.speculation.tokens:
        drafted = f'{{"method": "mtp", "num_speculative_tokens": {options.speculation.tokens}}}'
        words += ["--speculative-config", drafted]
    return [*words, *more]


def check(deployment: Deployment) -> None:
    """Raise E662 where vLLM is not installed beside windtunnel, E663 for what one engine cannot be told."""
    if find_spec("vllm") is None:
        raise WindtunnelError(
            "E662",
            "--engine vllm needs vLLM in the environment that runs windtunnel, and it is not there",
            hint="install it as docs/serving-endpoints.md says, or take --engine native",
            values={"python": sys.executable},
        )
    if deployment.replicas > 1:
        cards = deployment.layout.cards
        raise WindtunnelError(
            "E663",
            f"--engine vllm starts one engine; this layout has {deployment.replicas} of {cards} cards each",
            hint=f"--on {deployment.cluster.chip.name}:{cards}, or spread it: --tp and --dp that use all cards",
            values={"layout": deployment.words()},
        )


def serve(
    deployment: Deployment, model: str, on: str, told: Settings, *, names: Sequence[str], host: str, port: int,
    longest: int, work: Path, tokenizer: Path | None = None, more: Sequence[str] = (),
) -> int:  # fmt: skip
    """Become `vllm serve`. Does not return where that works. Raises E306, E661 to E663."""
    check(deployment)
    made = folder.make(work, model, tokenizer)
    words = command(deployment, made, names=names, host=host, port=port, longest=longest, more=more)
    environment = {**os.environ, **QUIET, **told.environment(on)}
    print(f"{deployment.model.title or deployment.model.name}, {deployment.words()}: vLLM", file=sys.stderr)
    os.execve(words[0], words, environment)

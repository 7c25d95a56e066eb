"""`windtunnel serve --engine vllm`: a model folder, vLLM's options for the deployment, and `vllm serve`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec

from windtunnel.endpoint.vllm import dialects, folder
from windtunnel.endpoint.vllm.settings import Settings
from windtunnel.errors import WindtunnelError
from windtunnel.serving.deployment import Deployment

QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": "windtunnel"}
TRANSFER = {
    "kv_connector": "VirtualTransfer",
    "kv_connector_module_path": "windtunnel.endpoint.vllm.transfer",
}
DRAIN_S = 30
"""How long answers under way may take after an interrupt; vLLM's own default (since 0.18) is to cut them."""
MIDDLEWARE = "windtunnel.endpoint.vllm.middleware.Policy"


def command(
    deployment: Deployment, model_folder: Path, *, names: Sequence[str], host: str, port: int,
    longest: int, more: Sequence[str] = (), stages: int = 1, role: str = "",
) -> list[str]:  # fmt: skip
    """`vllm serve` for the deployment: the same layout, batching and cache options, without weights.

    ``stages``: of a pipeline, each as ``deployment`` is laid out. ``role``: kv_producer or kv_consumer.
    """
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
        "--enable-auto-tool-choice", "--tool-call-parser", dialects.DEFAULT,
        "--enable-prompt-tokens-details",
        "--shutdown-timeout", str(DRAIN_S),
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
    if stages > 1:
        words += ["--pipeline-parallel-size", str(stages)]
    if role:
        words += ["--kv-transfer-config", json.dumps({**TRANSFER, "kv_role": role})]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an endpoint is, how it is named, and what it starts from.

    Attributes:
        on: the target as ``--on`` takes it. longest: tokens of a sequence at most. work: a folder for the model's
            configuration and tokenizer. more: further options of `vllm serve`.
    """

    model: str
    on: str
    names: tuple[str, ...]
    host: str
    port: int
    longest: int
    work: Path
    tokenizer: Path | None = None
    more: tuple[str, ...] = ()


def serve(deployment: Deployment, told: Settings, place: Place, stages: int = 1) -> int:
    """Become `vllm serve`. Does not return where that works. Raises E306, E661 to E663."""
    check(deployment)
    made = folder.make(place.work, place.model, place.tokenizer)
    words = command(
        deployment, made, names=place.names, host=place.host, port=place.port, longest=place.longest,
        more=place.more, stages=stages,
    )  # fmt: skip
    pipeline = f", PP {stages}" if stages > 1 else ""
    print(f"{_title(deployment)}, {deployment.words()}{pipeline}: vLLM", file=sys.stderr)
    os.execve(words[0], words, {**os.environ, **QUIET, **told.environment(place.on)})


def serve_apart(prefill: Deployment, decode: Deployment, told: Settings, place: Place) -> int:
    """Two engines, one for prompts and one for outputs, behind one address. Raises E306, E661 to E664."""
    from windtunnel.endpoint.vllm import pair  # needs the server's packages

    for deployment in (prefill, decode):
        check(deployment)
    made = folder.make(place.work, place.model, place.tokenizer)
    ports = pair.free_ports(2)
    engines = []
    for deployment, role, port in zip((prefill, decode), ("kv_producer", "kv_consumer"), ports, strict=True):
        words = command(
            deployment, made, names=place.names, host="127.0.0.1", port=port, longest=place.longest,
            more=place.more, role=role,
        )  # fmt: skip
        # both see every call: the one that answers keeps the record
        mine = told if deployment is decode else msgspec.structs.replace(told, record="")
        on = f"{place.on.rsplit(':', 1)[0]}:{deployment.cluster.cards}"
        engines.append(pair.Engine(words, {**os.environ, **QUIET, **mine.environment(on)}, port))
    print(
        f"{_title(decode)}, prefill {prefill.words()}, decode {decode.words()}: two engines of vLLM, "
        f"http://{place.host}:{place.port}/v1",
        file=sys.stderr,
    )
    return pair.serve(engines[0], engines[1], place.host, place.port)


def _title(deployment: Deployment) -> str:
    return deployment.model.title or deployment.model.name

"""Claims about agents served by the card."""

from __future__ import annotations

from functools import cache

from windtunnel.claims.claim import Answer, Claim, Says
from windtunnel.claims.evidence import stack_runs
from windtunnel.claims.prices import S5000
from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import Deployment, DeploymentOptions, deploy
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

GROUP = "The agents"
QWEN = "qwen3.5-397b-a17b"
SERVE = f"windtunnel serve {QWEN} --on mtt-s5000:8 --precision fp8-block --tensor-parallel-size 8"
CODE_TOKENS, PROMPT_TOKENS = 200, 4000


@cache
def _deployment() -> Deployment:
    options = DeploymentOptions(precision=Precision.FP8_BLOCK, tensor_parallel_size=8)
    return deploy(shipped_model(QWEN), cluster_of(S5000, 8), options)


def _teams() -> Answer:
    return Answer(
        runs=stack_runs("agents"),
        why=("call graphs recorded from live teams, replayed in virtual time with their tools' times",),
    )


def _code_blocks() -> Answer:
    step = _deployment().step
    first_s = step.mixed_s(0, 0, [(PROMPT_TOKENS, 0)])
    token_s = step.decode_s(1, PROMPT_TOKENS + CODE_TOKENS // 2)
    busy_s = step.decode_s(32, 32 * (PROMPT_TOKENS + CODE_TOKENS // 2))
    return Answer(
        runs=(
            f"a block of {CODE_TOKENS} tokens after a prompt of {PROMPT_TOKENS:,}: "
            f"{first_s + CODE_TOKENS * token_s:.1f} s alone on 8 cards (first token {first_s:.2f} s, "
            f"{1 / token_s:,.0f} tokens/s), {CODE_TOKENS * busy_s:.1f} s beside 31 others",
        ),
        why=("seconds, not an instant; no figure was published",),
    )


CLAIMS = (
    Claim(
        name="agents",
        group=GROUP,
        title="AutoGen and CrewAI teams on Qwen3.5-397B",
        says=Says.NO_FIGURE,
        wording="suits complex inter-agent high-frequency communication; scaling agentic services",
        said="press, February to March 2026",
        assumed=("FP8 weights, 8 cards", "answers as long as those recorded"),
        command=f"{SERVE} --agents autogen:swarm×8",
        evaluate=_teams,
    ),
    Claim(
        name="code-blocks",
        group=GROUP,
        title="Instantaneous code blocks",
        says=Says.NO_FIGURE,
        wording="instantaneous code block generation",
        said="press, February to March 2026",
        assumed=("FP8 weights, 8 cards",),
        command=f"{SERVE} --concurrency 1 --input-len {PROMPT_TOKENS} --output-len {CODE_TOKENS}",
        evaluate=_code_blocks,
    ),
)

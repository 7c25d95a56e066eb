"""Claims about agents served by the card."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from windtunnel.claims.arithmetic import serving_lines
from windtunnel.claims.claim import Answer, Claim, Says, Steady, Variation
from windtunnel.claims.evidence import stack_runs
from windtunnel.claims.prices import S5000
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

GROUP = "The agents"
QWEN = "qwen3.5-397b-a17b"
SERVE = f"windtunnel serve {QWEN} --on mtt-s5000:8 --precision fp8-block --tensor-parallel-size 8"
CODE_TOKENS, PROMPT_TOKENS = 200, 4000
OPTIONS = DeploymentOptions(precision=Precision.FP8_BLOCK, tensor_parallel_size=8)
RECORDED = (
    "each run gives the number of teams that keep their latency with its 80 % interval; the interval's low "
    "end is above "
    "zero in all of them, and the claim names no number"
)


@cache
def _deployment(cards: int, options: DeploymentOptions) -> Deployment:
    return deploy(shipped_model(QWEN), cluster_of(S5000, cards), options)


def _teams() -> Answer:
    return Answer(
        runs=stack_runs("agents"),
        steady=(
            Steady(of="FP8 weights, 8 cards", why=RECORDED),
            Steady(of="answers as long as those recorded", why=RECORDED),
        ),
        why=(
            "call graphs recorded from live teams, replayed in virtual time with their tools' times",
            *serving_lines(
                _deployment(8, OPTIONS),
                Batch(sequences=32, context=PROMPT_TOKENS),
                "one card of 8, a step of 32 sequences",
            ),
        ),
    )


def _screens() -> Answer:
    return Answer(
        runs=stack_runs("screens"),
        steady=(
            Steady(
                of="whether an answer is right is not computed",
                why="a virtual card has no trained weights: "
                "what is shown is that such sessions are served, and how fast",
            ),
        ),
        why=(
            "every turn sends all turns before it and a new screenshot of 1,920 × 1,080, whose 8,160 patches alone go "
            "through the vision tower",
            *serving_lines(
                _deployment(8, OPTIONS),
                Batch(sequences=1, new=2200, context=20_000),
                "one card of 8, the new part of a turn read",
            ),
        ),
    )


def _block_s(found: Deployment, others: int = 0) -> tuple[float, float, float]:
    """Seconds of a block of code beside ``others``, of its first token, and of one token."""
    step, sequences = found.step, others + 1
    first_s = step.mixed_s(0, 0, [(PROMPT_TOKENS, 0)])
    token_s = step.decode_s(sequences, sequences * (PROMPT_TOKENS + CODE_TOKENS // 2))
    return first_s + CODE_TOKENS * token_s, first_s, token_s


def _said(found: Deployment, others: int = 0) -> str:
    whole_s, first_s, token_s = _block_s(found, others)
    return f"{whole_s:.1f} s (first token {first_s:.2f} s, then {1 / token_s:,.0f} tokens/s)"


def _code_blocks() -> Answer:
    eight = _deployment(8, OPTIONS)
    eager = _deployment(8, replace(OPTIONS, enforce_eager=True))
    sixteen = _deployment(
        16, replace(OPTIONS, precision=Precision.BF16, data_parallel_size=2, enable_expert_parallel=True)
    )
    of = "FP8 weights, 8 cards"
    return Answer(
        runs=(
            f"a block of {CODE_TOKENS} tokens after a prompt of {PROMPT_TOKENS:,}: {_said(eight)} alone on 8 cards, "
            f"{_said(eight, 31)} beside 31 others",
            *stack_runs("code-blocks"),
        ),
        variations=(
            Variation(of=of, becomes="BF16 weights, 16 cards", outcome=_said(sixteen)),
            Variation(of="captured graphs", becomes="every kernel issued by the host", outcome=_said(eager)),
            Variation(of="alone on the cards", becomes="beside 127 others", outcome=_said(eight, 127)),
        ),
        why=(
            "seconds, not an instant; no figure was published",
            "measured on 8 S5000s by others: a step of 8 sequences of this model takes 59.7 ms with graphs, "
            "234 without; "
            f"we predict {eight.step.decode_s(8, 8 * PROMPT_TOKENS) * 1e3:.1f} and "
            f"{eager.step.decode_s(8, 8 * PROMPT_TOKENS) * 1e3:.1f} ms: too fast, and so are the lines above",
            *serving_lines(
                eight, Batch(sequences=1, context=PROMPT_TOKENS), "one card of 8, one token of one sequence"
            ),
        ),
    )


CLAIMS = (
    Claim(
        name="agents",
        group=GROUP,
        title="AutoGen and CrewAI teams on Qwen3.5-397B",
        says=Says.NO_FIGURE,
        wording="suits complex inter-agent high-frequency communication; scaling agentic services; AutoGen: "
        "asynchronous "
        "message passing, multi-turn dialogue; CrewAI: role-based, linear tasks",
        said="press, February to March 2026",
        assumed=("FP8 weights, 8 cards", "answers as long as those recorded"),
        command=f"{SERVE} --agents autogen:swarm×8",
        evaluate=_teams,
    ),
    Claim(
        name="screens",
        group=GROUP,
        title="Agents that navigate screens",
        says=Says.NO_FIGURE,
        wording="agent-centric: understands and navigates mobile and web user interfaces",
        said="Moore Threads, February 2026, of Qwen3.5-397B-A17B",
        assumed=("whether an answer is right is not computed",),
        command=f"{SERVE} --gui-sessions 20 --rate 0.1",
        evaluate=_screens,
    ),
    Claim(
        name="code-blocks",
        group=GROUP,
        title="Instantaneous code blocks",
        says=Says.NO_FIGURE,
        wording="instantaneous code block generation",
        said="press, February to March 2026",
        assumed=("FP8 weights, 8 cards", "captured graphs", "alone on the cards"),
        command=f"{SERVE} --concurrency 1 --input-len {PROMPT_TOKENS} --output-len {CODE_TOKENS} --requests 16",
        evaluate=_code_blocks,
    ),
)
